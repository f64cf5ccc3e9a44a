// The comparison as a page of Markdown: figures, the claims of 2014, and a section a mechanism.

import { combine } from "@bifurcate/control/compare/combine";
import type { Comparison } from "@bifurcate/control/compare/compare";
import { CRITERIA, CRITERION_NAMES } from "@bifurcate/control/compare/criteria";
import { CLAIMS, CLAIMS_FROM } from "@bifurcate/control/compare/thread-2014";
import {
  aboutMachine,
  FLOW_COLUMNS,
  flowRow,
  HOW,
  KERNEL_COLUMNS,
  kernelRow,
  measuredCards,
  saying,
} from "./figures.js";

/** The page. `preface`: what is to be said of how it was made. */
export function renderMarkdown(comparisons: readonly Comparison[], preface?: string): string {
  const combined = combine(comparisons);
  const cards = measuredCards(combined);
  const by = new Set(
    combined.mechanisms.flatMap(({ cells }) =>
      cells.performance.filter(({ kind }) => kind === "measured").map(({ source }) => source),
    ),
  );
  const figures =
    cards.length === 0
      ? "Nothing was measured: `bifurcate compare --run` does.\n"
      : [
          `By ${[...by].map((command) => `\`${command}\``).join(" and ")}. First the flow; then the kernel's own round trips over the same card meanwhile: p50 / p99 / lost.\n`,
          ...cards.flatMap(({ on, measured }) => [
            ...(on === null ? [] : [`### On ${on}\n`]),
            table(FLOW_COLUMNS, measured.map(flowRow)),
            table(KERNEL_COLUMNS, measured.map(kernelRow)),
          ]),
          "### How this was measured\n",
          `${HOW.map((each) => `- ${each}`).join("\n")}\n`,
        ].join("\n");
  const claims = CLAIMS.map(({ criterion, claim, from, verdict, today }) => [
    CRITERIA[criterion],
    `${claim} (${from})`,
    `**${verdict}**`,
    today,
  ]);
  const sections = combined.mechanisms.map(({ mechanism, cells }) => {
    const rows = CRITERION_NAMES.flatMap((criterion) =>
      cells[criterion].map((each, n) => [
        n === 0 ? CRITERIA[criterion] : "",
        saying(each),
        `${each.kind}: ${each.source}`,
      ]),
    );
    return `### ${mechanism}\n\n${table(["criterion", "says", "how it is known"], rows)}`;
  });
  return [
    "# Every way to user space, compared\n",
    ...(preface === undefined ? [] : [`${preface}\n`]),
    `${aboutMachine(comparisons)}\n`,
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
