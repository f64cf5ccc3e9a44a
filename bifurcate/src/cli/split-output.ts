// How a split introduces itself, when it is in place.

import type { PortPath } from "../port.js";
import { jsonLine } from "./io.js";
import { pathWords, type RunOutput } from "./run-output.js";

/** What is known when the split is in place. */
export interface SplitIntroduction {
  readonly id: string | null;
  readonly device: string;
  /** The namespace it is in, as the user named it; null: the process's own. */
  readonly netns: string | null;
  readonly flows: readonly string[];
  readonly path: PortPath;
  readonly warnings: readonly string[];
  readonly bypasses: readonly string[];
}

/** What stands before a command that is to run in a namespace. */
function inside(netns: string | null): string {
  if (netns === null) return "";
  return netns.includes("/") ? `nsenter --net=${netns} ` : `ip netns exec ${netns} `;
}

/** Says what the split is, as `split --json` does in its first line, or in words. */
export function introduceSplit(output: RunOutput, introduction: SplitIntroduction): void {
  const { streams } = output;
  if (output.json) {
    streams.out(jsonLine({ event: "split", pid: process.pid, ...introduction }));
    return;
  }
  const { device, netns, flows, path, warnings, bypasses } = introduction;
  streams.out(`${device}: ${flows.map((flow) => `'${flow}'`).join(", ")} by ${pathWords(path)}\n`);
  for (const note of path.notes) streams.out(`  note: ${note}\n`);
  const { tap } = path.obtained;
  if (tap !== undefined) streams.out(`  to see it: ${inside(netns)}tcpdump -ni ${tap}\n`);
  for (const warning of warnings) streams.err(`warning: ${warning}\n`);
  if (bypasses.length > 0) streams.out(`  out of sight of: ${bypasses.join("; ")}\n`);
}
