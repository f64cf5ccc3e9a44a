// Where a command's words go: results to stdout, progress and errors to stderr, and JSON instead when asked for.

import { BifurcateError } from "@bifurcate/control";

/** The two streams, replaced in tests. */
export interface Streams {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** stderr is a terminal: a line may be rewritten. */
  readonly live: boolean;
}

/** The process's own. */
export const processStreams: Streams = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  live: process.stderr.isTTY === true,
};

/** One JSON value on a line of its own. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

/** An error in the form asked for. */
export function renderError(error: BifurcateError, json: boolean): string {
  if (json) return jsonLine(error);
  const cause = process.env["BIFURCATE_DEBUG"] ? `${error.stack ?? ""}\n${causes(error)}` : "";
  return `bifurcate: ${error.render()}\n${cause}`;
}

function causes(error: Error): string {
  const { cause } = error;
  return cause instanceof Error ? `caused by ${cause.stack ?? cause.message}\n${causes(cause)}` : "";
}

/** A line that is rewritten in place on a terminal, and printed once a call elsewhere. */
export class LiveLine {
  private shown = false;

  constructor(private readonly streams: Streams) {}

  show(text: string): void {
    this.streams.err(this.streams.live ? `\r\x1b[2K${text}` : `${text}\n`);
    this.shown = this.streams.live;
  }

  /** Leaves the line as it stands, so that what comes next begins on a new one. */
  end(): void {
    if (this.shown) this.streams.err("\n");
    this.shown = false;
  }
}
