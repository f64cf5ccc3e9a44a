// The comparison as plain text: figures first, then each mechanism by each criterion.

import { CRITERIA, CRITERION_NAMES, type Comparison } from "@bifurcate/control";
import { renderTable } from "../table.js";
import { aboutMachine, FLOW_COLUMNS, flowRow, KERNEL_COLUMNS, kernelRow, measuredOnes } from "./figures.js";

/** The report. */
export function renderText(comparison: Comparison): string {
  const measured = measuredOnes(comparison);
  const columns = (titles: readonly string[]) => titles.map((title, n) => ({ title, right: n > 0 }));
  const figures =
    measured.length === 0
      ? []
      : [
          renderTable(columns(FLOW_COLUMNS), measured.map(flowRow)),
          "\nthe kernel's own round trips meanwhile (p50 / p99 / lost)\n",
          renderTable(columns(KERNEL_COLUMNS), measured.map(kernelRow)),
          "\n",
        ];
  const mechanisms = comparison.mechanisms.map(({ mechanism, ready, cells }) => {
    const state = ready === null ? "" : ready ? " (ready)" : " (not ready)";
    const lines = CRITERION_NAMES.flatMap((criterion) => [
      `  ${CRITERIA[criterion]}\n`,
      ...cells[criterion].map(({ kind, says, source }) => `    ${kind}: ${says} [${source}]\n`),
    ]);
    return `${mechanism}${state}\n${lines.join("")}\n`;
  });
  return [`${aboutMachine(comparison)}\n\n`, ...figures, ...mechanisms].join("");
}
