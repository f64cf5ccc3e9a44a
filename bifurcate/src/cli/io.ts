// Where a command's words go: results to stdout, progress and errors to stderr, and JSON instead when asked for.

import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";

/** The two streams, replaced in tests. */
export interface Streams {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** stderr is a terminal: a line may be rewritten. */
  readonly live: boolean;
  /** The terminal's width, asked for each time: windows change. Left out where it is not known. */
  readonly columns?: () => number | undefined;
}

/** The process's own. */
export const processStreams: Streams = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  live: process.stderr.isTTY === true,
  columns: () => process.stderr.columns,
};

/** Thrown to end with the status of a command that ran elsewhere, when all has been said. */
export class CommandStatus extends Error {
  constructor(readonly status: number) {
    super(`ended with status ${status}`);
  }
}

/** One JSON value on a line of its own. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

/** An error in the form asked for. */
export function renderError(error: BifurcateError, json: boolean): string {
  if (json) return jsonLine(error);
  const cause = process.env["BIFURCATE_DEBUG"] ? `${error.stack ?? ""}\n${causes(error)}` : "";
  return `bifurcate: ${error.render()}\n${place(error)}${cause}`;
}

/** This package, as it stands in stacks. */
const OURS = fileURLToPath(new URL("..", import.meta.url));

/** Where a handler failed: the first place of the stack that is neither Node's nor ours. "" for all other errors. */
function place({ code, cause }: BifurcateError): string {
  if (!/^E_HANDLER_/.test(code) || !(cause instanceof Error)) return "";
  const places = (cause.stack ?? "").split("\n").filter((line) => line.startsWith("    at "));
  const foreign = ["node:", "node_modules", OURS, "(<anonymous>)"];
  const own = places.find((line) => !foreign.some((word) => line.includes(word)));
  return own === undefined ? "" : `  ${own.trim()}\n`;
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
    // A line that wraps could not be rewritten: what is too long is cut. The last column makes some terminals wrap.
    const room = Math.max(1, (this.streams.columns?.() || Infinity) - 1);
    this.streams.err(this.streams.live ? `\r\x1b[2K${text.slice(0, room)}` : `${text}\n`);
    this.shown = this.streams.live;
  }

  /** Leaves the line as it stands, so that what comes next begins on a new one. */
  end(): void {
    if (this.shown) this.streams.err("\n");
    this.shown = false;
  }
}
