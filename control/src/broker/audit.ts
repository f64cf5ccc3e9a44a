// The audit log: who did what, when, and how it ended; one JSON object a line, appended and never rewritten.
import { closeSync, openSync, writeSync } from "node:fs";
import { wrapError } from "../errors.js";

/** One line. */
export interface AuditEntry {
  /**
   * "lease", "end", "release", "return" and "resume" (where they were refused), "end-process", "undo", "adopt",
   * "refuse", "start", "reload", "stop", "metrics".
   */
  readonly event: string;
  readonly uid?: number | undefined;
  readonly pid?: number | undefined;
  readonly lease?: string | undefined;
  readonly device?: string | undefined;
  readonly flows?: readonly string[] | undefined;
  readonly rule?: string | undefined;
  readonly why?: string | undefined;
  /** "done", or an error's code. */
  readonly outcome: string;
  readonly [more: string]: unknown;
}

/** Where entries go. */
export interface Audit {
  write(entry: AuditEntry): void;
  close(): void;
}

/** Writes to a file, mode 0640, opened for appending; a full disk is no reason to stop serving. */
export function auditFile(path: string): Audit {
  let file: number;
  try {
    file = openSync(path, "a", 0o640);
  } catch (thrown) {
    throw wrapError(thrown, `open the audit log ${path}`);
  }
  return {
    write: (entry) => void writeLine(file, entry),
    close: () => closeSync(file),
  };
}

/** Writes to a descriptor that stays open, e.g. stdout for the journal of systemd. */
export function auditTo(file: number): Audit {
  return { write: (entry) => void writeLine(file, entry), close: () => undefined };
}

function writeLine(file: number, entry: AuditEntry): boolean {
  try {
    const { event, outcome, ...rest } = entry;
    writeSync(file, `${JSON.stringify({ time: new Date().toISOString(), event, outcome, ...rest })}\n`);
    return true;
  } catch {
    return false;
  }
}
