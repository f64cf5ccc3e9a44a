// The comparison as one HTML file that needs nothing else: no script, no font, no picture from anywhere.

import type { Statement } from "@bifurcate/control/compare/cell";
import { combine, type CombinedMechanism, type StatementOn } from "@bifurcate/control/compare/combine";
import type { Comparison } from "@bifurcate/control/compare/compare";
import { CRITERIA, CRITERION_NAMES } from "@bifurcate/control/compare/criteria";
import { CLAIMS, CLAIMS_FROM } from "@bifurcate/control/compare/thread-2014";
import { escape } from "./escape.js";
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
import { plots } from "./plots.js";
import { STYLE } from "./style.js";

/** The page. `preface`: what is to be said of how it was made. */
export function renderHtml(comparisons: readonly Comparison[], preface?: string): string {
  const combined = combine(comparisons);
  const cards = measuredCards(combined);
  const figures =
    cards.length === 0
      ? "<p>Nothing was measured: <code>bifurcate compare --run</code> does.</p>"
      : [
          "<p>The flow; below it the kernel’s own round trips over the same card meanwhile: p50 / p99 / lost.</p>",
          ...cards.flatMap(({ on, measured }) => [
            on === null ? "" : `<h3>On ${escape(on)}</h3>`,
            `<div class="plots">${plots(measured)}</div>`,
            table(FLOW_COLUMNS, measured.map(flowRow), "numbers"),
            table(KERNEL_COLUMNS, measured.map(kernelRow), "numbers"),
          ]),
          `<details open><summary>How this was measured</summary><ul>${HOW.map((each) => `<li>${escape(each)}</li>`).join("")}</ul></details>`,
        ].join("\n");
  const claims = CLAIMS.map(({ criterion, claim, from, verdict, today }) => [
    CRITERIA[criterion],
    `${claim} (${from})`,
    verdict,
    today,
  ]);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Every way to user space, compared</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>Every way to user space, compared</h1>
${preface === undefined ? "" : `<p>${escape(preface)}</p>\n`}<p>${escape(aboutMachine(comparisons))} Made ${escape(comparisons[0]!.made.slice(0, 16).replace("T", " "))} UTC by <code>bifurcate compare</code>.</p>
<p>Each statement says how it came to be known: ${tag("known")} true everywhere, by its source; ${tag("probed")} what this machine and card said; ${tag("measured")} counted here.</p>
</header>
<main>
<h2>Measured</h2>
${figures}
<h2>Mechanism by mechanism</h2>
${matrix(combined.mechanisms)}
<h2>What was said of the bifurcated driver in 2014</h2>
<p>${escape(CLAIMS_FROM)}</p>
${table(["criterion", "claim", "today", "why"], claims, "claims")}
</main>
</body>
</html>
`;
}

/** The mechanisms in rows, the criteria in columns; on a narrow screen each row is a card of its own. */
function matrix(mechanisms: readonly CombinedMechanism[]): string {
  const head = ["mechanism", ...CRITERION_NAMES.map((criterion) => CRITERIA[criterion])]
    .map((title) => `<th scope="col">${escape(title)}</th>`)
    .join("");
  const rows = mechanisms.map(({ mechanism, ready, cells }) => {
    const state = ready === null ? "" : `<br><small>${ready ? "ready here" : "not ready here"}</small>`;
    const own = CRITERION_NAMES.map(
      (criterion) =>
        `<td data-title="${escape(CRITERIA[criterion])}">${cells[criterion].map(statement).join("")}</td>`,
    );
    return `<tr><th scope="row">${escape(mechanism)}${state}</th>${own.join("")}</tr>`;
  });
  return `<table class="matrix"><thead><tr>${head}</tr></thead><tbody>${rows.join("\n")}</tbody></table>`;
}

function statement(each: StatementOn): string {
  return `<p>${tag(each.kind)} ${escape(saying(each))} <small>${escape(each.source)}</small></p>`;
}

function tag(kind: Statement["kind"]): string {
  return `<span class="tag ${kind}">${kind}</span>`;
}

function table(titles: readonly string[], rows: readonly (readonly string[])[], kind: string): string {
  const head = titles.map((title) => `<th scope="col">${escape(title)}</th>`).join("");
  const body = rows.map((cells) => {
    const [first = "", ...rest] = cells;
    const own = rest.map((text, n) => `<td data-title="${escape(titles[n + 1] ?? "")}">${escape(text)}</td>`);
    return `<tr><th scope="row">${escape(first)}</th>${own.join("")}</tr>`;
  });
  return `<table class="${kind}"><thead><tr>${head}</tr></thead><tbody>${body.join("\n")}</tbody></table>`;
}
