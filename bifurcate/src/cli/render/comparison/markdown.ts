// The comparison as a page of Markdown: figures, the claims of 2014, and a section a mechanism.

import { CLAIMS, CLAIMS_FROM, CRITERIA, CRITERION_NAMES, type Comparison } from "@bifurcate/control";
import {
  aboutMachine,
  FLOW_COLUMNS,
  flowRow,
  HOW,
  KERNEL_COLUMNS,
  kernelRow,
  measuredOnes,
} from "./figures.js";

/** The page. */
export function renderMarkdown(comparison: Comparison): string {
  const measured = measuredOnes(comparison);
  const figures =
    measured.length === 0
      ? "Nothing was measured: `bifurcate compare --run` does.\n"
      : [
          "### The flow\n",
          table(FLOW_COLUMNS, measured.map(flowRow)),
          "### The kernel's own traffic meanwhile\n",
          "Round trips over the same card: p50 / p99 / lost.\n",
          table(KERNEL_COLUMNS, measured.map(kernelRow)),
          "### How this was measured\n",
          `${HOW.map((each) => `- ${each}`).join("\n")}\n`,
        ].join("\n");
  const claims = CLAIMS.map(({ criterion, claim, verdict, today }) => [
    CRITERIA[criterion],
    claim,
    `**${verdict}**`,
    today,
  ]);
  const sections = comparison.mechanisms.map(({ mechanism, cells }) => {
    const rows = CRITERION_NAMES.flatMap((criterion) =>
      cells[criterion].map(({ kind, says, source }, n) => [
        n === 0 ? CRITERIA[criterion] : "",
        `${says}`,
        `${kind}: ${source}`,
      ]),
    );
    return `### ${mechanism}\n\n${table(["criterion", "says", "how it is known"], rows)}`;
  });
  return [
    "# Every way to user space, compared\n",
    `${aboutMachine(comparison)}\n`,
    "Each statement says how it came to be known: _known_ (true everywhere, by its source), _probed_ (what the machine and the card said) or _measured_.\n",
    "## Measured\n",
    figures,
    "## What was said of the bifurcated driver in 2014\n",
    `${CLAIMS_FROM}\n`,
    table(["criterion", "claim", "today", "why"], claims),
    "## Mechanism by mechanism\n",
    ...sections,
  ].join("\n");
}

function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(" | ")} |`;
  return [line(titles), `| ${titles.map(() => "---").join(" | ")} |`, ...rows.map(line), ""].join("\n");
}

/** A cell may hold no line's end, and a bar would end it. */
function cell(text: string): string {
  return text
    .replaceAll(/\s*\n\s*/g, " ")
    .replaceAll("|", "\\|")
    .replaceAll("<", "&lt;");
}
