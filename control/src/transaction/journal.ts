// The journal of a split: what was changed and what undoes it, on disk before each change is made.
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { BifurcateError, isErrorCode, messageOf } from "../errors.js";
import { identify, type ProcessIdentity } from "../facts/processes.js";
import type { Plan } from "../steering/plan.js";

/** Where journals are kept: BIFURCATE_STATE_DIR, or a directory that a reboot empties. */
export function stateDirectory(): string {
  const named = process.env["BIFURCATE_STATE_DIR"];
  return named === undefined || named === "" ? "/run/bifurcate" : named;
}

/**
 * How far a step got. "applying" is written before the change is made, so a step in that state may or may not
 * have happened; "left" was not undone because somebody else changed the setting since.
 */
export type StepState = "pending" | "applying" | "applied" | "undone" | "left";

/** One split's record. */
export interface Journal {
  readonly version: 1;
  readonly id: string;
  /** ISO 8601. */
  readonly created: string;
  /** No setting survives a reboot, so a journal of another boot is void. */
  readonly bootId: string;
  readonly owner: ProcessIdentity;
  /** null while there is none. */
  readonly guardian: ProcessIdentity | null;
  /** The namespace's file as it was opened, and its inode, which says whether it is still that one. */
  readonly netns: { readonly path: string; readonly inode: number };
  readonly plan: Plan;
  /** One for each step of the plan. */
  readonly steps: readonly StepState[];
  /** Milliseconds since 1970 by which the split has to be confirmed; null: confirmed, or no need to be. */
  readonly confirmBy: number | null;
}

const SUFFIX = ".json";

/** The file of a journal. */
export function journalPath(directory: string, id: string): string {
  return join(directory, `${id}${SUFFIX}`);
}

/** Writes a journal: see writeWhole. */
export function writeJournal(directory: string, journal: Journal): void {
  writeWhole(directory, journalPath(directory, journal.id), journal);
}

/**
 * Writes a value as JSON so that a crash at any moment leaves the old file or the new one, whole: a new file, fsync,
 * rename, fsync of the directory. E_JOURNAL where that fails.
 */
export function writeWhole(directory: string, path: string, value: unknown): void {
  const fresh = `${path}.${process.pid}.new`;
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
    const file = openSync(fresh, "w", 0o600);
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(fresh, path);
    syncDirectory(directory);
  } catch (thrown) {
    try {
      rmSync(fresh, { force: true });
    } catch {
      // Where it cannot be made it need not be removed.
    }
    throw new BifurcateError("E_JOURNAL", {
      what: `write the journal ${path}`,
      why: messageOf(thrown),
      cause: thrown,
    });
  }
}

/** Removes a journal: the split it was about has left nothing behind. */
export function removeJournal(directory: string, id: string): void {
  removeFile(directory, journalPath(directory, id));
}

/** Removes a file for good, if it is there. */
export function removeFile(directory: string, path: string): void {
  try {
    unlinkSync(path);
    syncDirectory(directory);
  } catch {
    // Gone already: somebody else finished the same undo.
  }
}

/** Reads one journal; null when there is none, E_JOURNAL_CORRUPT when it cannot be understood. */
export function readJournal(directory: string, id: string): Journal | null {
  const path = journalPath(directory, id);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (thrown) {
    if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") return null;
    throw new BifurcateError("E_JOURNAL", {
      what: `read the journal ${path}`,
      why: messageOf(thrown),
      cause: thrown,
    });
  }
  try {
    return checked(JSON.parse(text), id);
  } catch (thrown) {
    throw new BifurcateError("E_JOURNAL_CORRUPT", {
      what: `read the journal ${path}`,
      why: messageOf(thrown),
      cause: thrown,
    });
  }
}

/** All journals of a directory; the ones that cannot be read, as errors. No directory means no journals. */
export function readJournals(directory: string): { journals: Journal[]; errors: BifurcateError[] } {
  const journals: Journal[] = [];
  const errors: BifurcateError[] = [];
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return { journals, errors };
  }
  for (const name of names.filter((each) => each.endsWith(SUFFIX)).sort()) {
    try {
      const journal = readJournal(directory, name.slice(0, -SUFFIX.length));
      if (journal !== null) journals.push(journal);
    } catch (thrown) {
      if (!(thrown instanceof BifurcateError) || !isErrorCode(thrown.code)) throw thrown;
      errors.push(thrown);
    }
  }
  return { journals, errors };
}

/** Removes what a process that died in the middle of a write left: `ID.json.PID.new`. */
export function sweep(directory: string): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return;
  }
  for (const name of names) {
    const pid = /\.json\.(\d+)\.new$/.exec(name)?.[1];
    if (pid !== undefined && identify(Number(pid)) === null) rmSync(join(directory, name), { force: true });
  }
}

/** Puts a journal that cannot be read out of the way, keeping it for a person to look at; gives its new path. */
export function setAside(directory: string, id: string): string {
  const path = journalPath(directory, id);
  const aside = `${path}.corrupt`;
  renameSync(path, aside);
  return aside;
}

function syncDirectory(directory: string): void {
  const handle = openSync(directory, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** The parts that an undo relies on, checked; throws with the part that is wrong. */
function checked(value: unknown, id: string): Journal {
  const journal = value as Partial<Journal> | null;
  const wrong = (part: string): never => {
    throw new Error(`its ${part} is missing or wrong`);
  };
  if (typeof journal !== "object" || journal === null || journal.version !== 1) return wrong("version");
  if (journal.id !== id) return wrong("id");
  const { owner, netns, plan, steps } = journal;
  if (typeof owner?.pid !== "number" || typeof owner.startTime !== "string") return wrong("owner");
  if (typeof netns?.inode !== "number" || typeof netns.path !== "string") return wrong("netns");
  if (typeof plan?.device?.ifindex !== "number" || !Array.isArray(plan.steps)) return wrong("plan");
  if (!Array.isArray(steps) || steps.length !== plan.steps.length) return wrong("list of steps");
  return journal as Journal;
}
