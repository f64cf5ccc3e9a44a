// What a command says while ports run: for a person a live line and a table at the end, for a program JSON lines.

import type { Port, PortPath } from "../port.js";
import { jsonLine, LiveLine, type Streams } from "./io.js";
import { rateLine, summary } from "./render/rates.js";
import type { Counters } from "../native.js";
import type { StopReason } from "./stop.js";

/** The counters at one moment: of all together, and a row for each queue or port. */
export interface Reading {
  readonly total: Counters;
  readonly rows: readonly (readonly [name: string, stats: Counters])[];
  /** What --json says of them, beside `event`. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** The path in words, e.g. "af_xdp, queues 0,1,2,3, copy, driver mode, steered by xdp, hugepages". */
export function pathWords(path: PortPath): string {
  const words = [
    path.backend,
    `${path.queues.length === 1 ? "queue" : "queues"} ${path.queues.join(",")}`,
    path.mode,
  ];
  if (path.xdp !== null) words.push(`${path.xdp} mode`);
  if (path.steering !== "none") words.push(`steered by ${path.steering}`);
  words.push(path.obtained.pages === "huge" ? "hugepages" : "ordinary pages");
  return words.join(", ");
}

/** One run's output, from the first line to the last. */
export class RunOutput {
  private readonly live: LiveLine;
  private readonly began = performance.now();
  private last: { readonly at: number; readonly total: Counters };

  /** @param start The counters at the beginning. */
  constructor(
    readonly streams: Streams,
    readonly json: boolean,
    start: Counters,
  ) {
    this.live = new LiveLine(streams);
    this.last = { at: this.began, total: start };
  }

  /** A port without a card to introduce: one line, and its notes. */
  introducePort(port: Port): void {
    this.streams.out(`${port.name}: ${pathWords(port.path)}\n`);
    for (const note of port.path.notes) this.streams.out(`  note: ${note}\n`);
  }

  warn(text: string): void {
    this.live.end();
    if (this.json) this.streams.out(jsonLine({ event: "warning", text }));
    else this.streams.err(`warning: ${text}\n`);
  }

  /** The rates since the last call. */
  rates({ total, json }: Reading): void {
    const now = performance.now();
    const seconds = (now - this.last.at) / 1000;
    const elapsed = (now - this.began) / 1000;
    if (this.json) this.streams.out(jsonLine({ event: "rates", elapsed, seconds, ...json }));
    else this.live.show(rateLine(elapsed, seconds, this.last.total, total));
    this.last = { at: now, total };
  }

  /** The last word, after everything has been put back. */
  end(reason: StopReason, { total, rows, json }: Reading): void {
    const seconds = (performance.now() - this.began) / 1000;
    this.live.end();
    if (this.json) this.streams.out(jsonLine({ event: "end", reason, seconds, ...json }));
    else this.streams.out(summary(seconds, total, rows));
  }
}
