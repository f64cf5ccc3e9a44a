// What the doctor found, for a person: the findings with what mends each, then what each mechanism lacks on each card.

import type { Examination } from "@bifurcate/control/doctor/examine";
import type { Finding } from "@bifurcate/control/doctor/finding";
import { renderTable } from "./table.js";

function renderFinding({ subject, name, says, mend }: Finding): string {
  return `  ${subject}: ${says} [${name}]\n    mend: ${mend}\n`;
}

function group(title: string, findings: readonly Finding[]): string {
  return findings.length === 0 ? "" : `${title}\n${findings.map(renderFinding).join("")}\n`;
}

/** The whole report; what each mechanism lacks only where one card is looked at. */
export function renderExamination({ machine, cards, findings, leftOut }: Examination): string {
  const problems = findings.filter((each) => each.level === "problem");
  const advice = findings.filter((each) => each.level === "advice");
  const names = cards[0]?.mechanisms.map((each) => each.name) ?? [];
  const columns = ["mechanism", ...cards.map((card) => card.name)].map((title) => ({ title }));
  const rows = names.map((name, n) => [
    name,
    ...cards.map((card) => {
      const lacks = card.mechanisms[n]?.lacks.length ?? 0;
      return lacks === 0 ? "ready" : `lacks ${lacks}`;
    }),
  ]);
  const lacking = cards.flatMap((card) =>
    card.mechanisms
      .filter((each) => !each.ready)
      .map((each) => {
        const lines = each.lacks.map(
          ({ what, mend }) => `    ${what}\n${mend === null ? "" : `      mend: ${mend}\n`}`,
        );
        return `  ${each.name}\n${lines.join("")}`;
      }),
  );
  return [
    `Linux ${machine.kernel}\n\n`,
    problems.length === 0 ? "no problems\n\n" : group("problems", problems),
    group("could be better", advice),
    cards.length === 0 ? "" : `${renderTable(columns, rows)}\n`,
    cards.length === 1 && lacking.length > 0 ? `what they lack\n${lacking.join("")}` : "",
    cards.length > 1 ? "`bifurcate doctor DEV` says what each lacks\n" : "",
    leftOut.length === 0 ? "" : `not looked at, since down: ${leftOut.join(", ")}\n`,
  ].join("");
}
