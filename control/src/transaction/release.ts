// Ends splits from outside: asks a living owner to, and undoes what the dead have left.
import { BifurcateError, messageOf, wrapError } from "../errors.js";
import { bootId, commandOf, isAlive } from "../facts/processes.js";
import type { Kernel } from "../kernel.js";
import {
  readJournal,
  readJournals,
  removeJournal,
  setAside,
  stateDirectory,
  sweep,
  type Journal,
} from "./journal.js";
import { reopenNetns } from "./locate.js";
import { stateOf } from "./registry.js";
import { forgetConfirmation } from "./transaction.js";
import { undoJournal, type UndoReport } from "./undo.js";

export interface ReleaseOptions {
  /** BIFURCATE_STATE_DIR or /run/bifurcate when left out. */
  readonly directory?: string | undefined;
  /** How long a living owner or guardian may take, ms; 15,000 when left out. */
  readonly timeout?: number | undefined;
}

/** What was released: `report` is null where the owner or its guardian did the undo. */
export interface Released {
  readonly id: string;
  readonly device: string;
  readonly report: UndoReport | null;
}

const POLL_MS = 50;

/**
 * Ends one split. Errors: E_NO_SUCH_SPLIT, E_RELEASE_REFUSED where its owner goes on, E_UNDO_INCOMPLETE,
 * E_JOURNAL_CORRUPT.
 */
export async function release(kernel: Kernel, id: string, options: ReleaseOptions = {}): Promise<Released> {
  const directory = options.directory ?? stateDirectory();
  const journal = readJournal(directory, id);
  if (journal === null) {
    const names = readJournals(directory).journals.map((each) => each.id);
    throw new BifurcateError("E_NO_SUCH_SPLIT", {
      what: `release the split ${id}`,
      why: names.length === 0 ? "there are no splits" : `there are ${names.join(", ")}`,
    });
  }
  const device = journal.plan.device.name;
  if (stateOf(journal) === "live") {
    try {
      process.kill(journal.owner.pid, "SIGTERM");
    } catch (thrown) {
      throw wrapError(thrown, `ask pid ${journal.owner.pid} to end the split ${id}`, "E_RELEASE_REFUSED");
    }
  }
  if (stateOf(journal) !== "stale") {
    const deadline = Date.now() + (options.timeout ?? 15_000);
    while (Date.now() < deadline) {
      const now = readJournal(directory, id);
      if (now === null) return { id, device, report: null };
      if (stateOf(now) === "stale") break;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    if (isAlive(journal.owner)) {
      throw new BifurcateError("E_RELEASE_REFUSED", {
        what: `release the split ${id}`,
        why: `its owner ${commandOf(journal.owner.pid)} (pid ${journal.owner.pid}) goes on after SIGTERM`,
        next: `End it with \`kill -9 ${journal.owner.pid}\`; its guardian then restores ${device}.`,
      });
    }
  }
  const left = readJournal(directory, id);
  return { id, device, report: left === null ? null : await undoStale(kernel, directory, left) };
}

/** What releaseStale() did, and what it could not. */
export interface StaleReport {
  readonly released: readonly Released[];
  readonly errors: readonly BifurcateError[];
}

/**
 * Undoes every split whose owner and guardian are dead; with `device`, those of that device alone. Journals
 * that cannot be read are set aside and reported. Never throws for one split: all are tried.
 */
export async function releaseStale(
  kernel: Kernel,
  options: ReleaseOptions & {
    readonly device?: { readonly netnsInode: number; readonly ifindex: number } | undefined;
  } = {},
): Promise<StaleReport> {
  const directory = options.directory ?? stateDirectory();
  const released: Released[] = [];
  const errors: BifurcateError[] = [];
  sweep(directory);
  const found = readJournals(directory);
  for (const error of found.errors)
    errors.push(error.code === "E_JOURNAL_CORRUPT" ? aside(directory, error) : error);
  for (const journal of found.journals) {
    const { device } = options;
    const { ifindex, name } = journal.plan.device;
    if (device !== undefined && (device.ifindex !== ifindex || device.netnsInode !== journal.netns.inode))
      continue;
    if (stateOf(journal) !== "stale") continue;
    try {
      released.push({ id: journal.id, device: name, report: await undoStale(kernel, directory, journal) });
    } catch (thrown) {
      errors.push(wrapError(thrown, `release the stale split ${journal.id}`));
    }
  }
  return { released, errors };
}

async function undoStale(kernel: Kernel, directory: string, journal: Journal): Promise<UndoReport> {
  forgetConfirmation(directory, journal.id);
  if (journal.bootId !== bootId()) {
    removeJournal(directory, journal.id);
    return {
      undone: [],
      left: ["the machine was started anew since: its settings are gone"],
      deviceGone: false,
    };
  }
  const netns = reopenNetns(kernel, journal);
  try {
    return await undoJournal(kernel, netns, directory, journal);
  } finally {
    netns?.close();
  }
}

function aside(directory: string, error: BifurcateError): BifurcateError {
  const id = /([^/]+)\.json$/.exec(error.what)?.[1];
  if (id === undefined) return error;
  try {
    const path = setAside(directory, id);
    return new BifurcateError("E_JOURNAL_CORRUPT", {
      what: error.what,
      why: `${error.why}; it is now ${path}`,
      cause: error.cause,
      data: { path },
    });
  } catch (thrown) {
    return new BifurcateError("E_JOURNAL_CORRUPT", {
      what: error.what,
      why: `${error.why}; it cannot be set aside either: ${messageOf(thrown)}`,
      cause: thrown,
    });
  }
}
