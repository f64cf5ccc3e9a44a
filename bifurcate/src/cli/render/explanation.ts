// A packet's way for a person: a line a stage, what stands in its way, and with --live the counts.

import type { Complaint } from "@bifurcate/control/explain/complaint";
import type { Explanation } from "@bifurcate/control/explain/explain";
import type { LiveVerdict } from "@bifurcate/control/explain/live/verdict";
import { renderTable } from "./table.js";

function complaintLines(complaints: readonly Complaint[]): string {
  return complaints
    .map(({ name, says, mend }) => `  ${says} [${name}]\n${mend === null ? "" : `    mend: ${mend}\n`}`)
    .join("");
}

/** The way, as it is worked out. */
export function renderExplanation(explanation: Explanation): string {
  const rows = explanation.stages.map((stage) => [stage.name, stage.says]);
  const table = renderTable([{ title: "stage" }, { title: "what decides" }], rows);
  const { complaints } = explanation;
  return [
    `${explanation.packet} on ${explanation.device}\n\n${table}\n${explanation.says}\n`,
    complaints.length === 0 ? "" : `\nin its way\n${complaintLines(complaints)}`,
  ].join("");
}

/** The way, and what was counted on it. */
export function renderLive({ explanation, counted, vanish, seconds }: LiveVerdict): string {
  const rows = counted.map(({ name, packets, says }) => [name, packets === null ? "-" : `${packets}`, says]);
  const columns = [{ title: "stage" }, { title: "packets", right: true }, { title: `in ${seconds} s` }];
  const end =
    vanish === null
      ? "no packets vanish on the way\n"
      : `packets vanish at the stage ${vanish.stage}\n${complaintLines([vanish.complaint])}`;
  return `${renderExplanation(explanation)}\n${renderTable(columns, rows)}\n${end}`;
}
