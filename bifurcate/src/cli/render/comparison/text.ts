// The comparison as plain text: figures first, then each mechanism by each criterion.

import { combine } from "@bifurcate/control/compare/combine";
import type { Comparison } from "@bifurcate/control/compare/compare";
import { CRITERIA, CRITERION_NAMES } from "@bifurcate/control/compare/criteria";
import { renderTable } from "../table.js";
import {
  aboutMachine,
  FLOW_COLUMNS,
  flowRow,
  KERNEL_COLUMNS,
  kernelRow,
  measuredCards,
  saying,
} from "./figures.js";

/** The report. */
export function renderText(comparisons: readonly Comparison[]): string {
  const combined = combine(comparisons);
  const columns = (titles: readonly string[]) => titles.map((title, n) => ({ title, right: n > 0 }));
  const figures = measuredCards(combined).flatMap(({ on, measured }) => [
    ...(on === null ? [] : [`${on}\n`]),
    renderTable(columns(FLOW_COLUMNS), measured.map(flowRow)),
    "\nthe kernel's own round trips meanwhile (p50 / p99 / lost)\n",
    renderTable(columns(KERNEL_COLUMNS), measured.map(kernelRow)),
    "\n",
  ]);
  const mechanisms = combined.mechanisms.map(({ mechanism, ready, cells }) => {
    const state = ready === null ? "" : ready ? " (ready)" : " (not ready)";
    const lines = CRITERION_NAMES.flatMap((criterion) => [
      `  ${CRITERIA[criterion]}\n`,
      ...cells[criterion].map((each) => `    ${each.kind}: ${saying(each)} [${each.source}]\n`),
    ]);
    return `${mechanism}${state}\n${lines.join("")}\n`;
  });
  return [`${aboutMachine(comparisons)}\n\n`, ...figures, ...mechanisms].join("");
}
