// What a running split says: for a person a few lines and a live one, for a program one JSON object a line.

import type { PortPath, PortStats } from "../port.js";
import { jsonLine, LiveLine, type Streams } from "./io.js";
import { rateLine, summary } from "./render/rates.js";
import type { StopReason } from "./stop.js";

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

/** The path in words, e.g. "af_xdp, queues 0,1,2,3, copy, driver mode, steered by xdp, hugepages". */
export function obtainedWords(path: PortPath): string {
  const words = [
    path.backend,
    `${path.queues.length === 1 ? "queue" : "queues"} ${path.queues.join(",")}`,
    path.mode,
  ];
  if (path.xdp !== null) words.push(`${path.xdp} mode`);
  words.push(`steered by ${path.steering}`, path.obtained.pages === "huge" ? "hugepages" : "ordinary pages");
  return words.join(", ");
}

/** What stands before a command that is to run in a namespace. */
function inside(netns: string | null): string {
  if (netns === null) return "";
  return netns.includes("/") ? `nsenter --net=${netns} ` : `ip netns exec ${netns} `;
}

/** One split's output, from the first line to the last. */
export class SplitOutput {
  private readonly live: LiveLine;
  private readonly began = performance.now();
  private last: { readonly at: number; readonly stats: PortStats };

  constructor(
    private readonly streams: Streams,
    private readonly json: boolean,
    stats: PortStats,
  ) {
    this.live = new LiveLine(streams);
    this.last = { at: this.began, stats };
  }

  introduce(introduction: SplitIntroduction): void {
    if (this.json) {
      this.streams.out(jsonLine({ event: "split", pid: process.pid, ...introduction }));
      return;
    }
    const { device, netns, flows, path, warnings, bypasses } = introduction;
    this.streams.out(`${device}: ${flows.map((flow) => `'${flow}'`).join(", ")} by ${obtainedWords(path)}\n`);
    for (const note of path.notes) this.streams.out(`  note: ${note}\n`);
    const { tap } = path.obtained;
    if (tap !== undefined) this.streams.out(`  to see it: ${inside(netns)}tcpdump -ni ${tap}\n`);
    for (const warning of warnings) this.streams.err(`warning: ${warning}\n`);
    if (bypasses.length > 0) this.streams.out(`  out of sight of: ${bypasses.join("; ")}\n`);
    this.streams.out("  Ctrl-C ends it and puts everything back\n");
  }

  warn(text: string): void {
    this.live.end();
    if (this.json) this.streams.out(jsonLine({ event: "warning", text }));
    else this.streams.err(`warning: ${text}\n`);
  }

  /** The rates since the last call. */
  rates(stats: PortStats): void {
    const now = performance.now();
    const seconds = (now - this.last.at) / 1000;
    const elapsed = (now - this.began) / 1000;
    if (this.json) this.streams.out(jsonLine({ event: "rates", elapsed, seconds, stats }));
    else this.live.show(rateLine(elapsed, seconds, this.last.stats, stats));
    this.last = { at: now, stats };
  }

  /** The last word, after everything has been put back. */
  end(reason: StopReason, stats: PortStats, path: PortPath): void {
    const seconds = (performance.now() - this.began) / 1000;
    this.live.end();
    if (this.json) this.streams.out(jsonLine({ event: "end", reason, seconds, stats }));
    else this.streams.out(summary(seconds, stats, stats.queues, path.queues));
  }
}
