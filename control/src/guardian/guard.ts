// What a guardian does: watches the owner of one split, and undoes the split when the owner is dead.
import { existsSync } from "node:fs";
import type { Kernel, Netns } from "../kernel.js";
import { isAlive } from "../facts/processes.js";
import { readJournal, type Journal } from "../transaction/journal.js";
import { reopenNetns } from "../transaction/locate.js";
import { confirmationPath, forgetConfirmation } from "../transaction/transaction.js";
import { undoJournal } from "../transaction/undo.js";

/** How often the owner is looked at besides the pipe, which a forked child of the owner may keep open. */
const WATCH_MS = 500;
/** How long an owner may take to end a split that was not confirmed; then SIGTERM, then SIGKILL. */
const GRACE_MS = 5_000;
const TERM_MS = 2_000;
/** Attempts at an undo that fails, and the pause between them. */
const ATTEMPTS = 10;
const PAUSE_MS = 1_000;

/** The world around a guardian; tests put another in its place. */
export interface Surroundings {
  readonly kernel: Kernel;
  readonly directory: string;
  readonly id: string;
  /** The namespace, opened when the guardian started: its name may vanish later. */
  readonly netns: Netns | null;
  /** Tells the owner one word. */
  say(word: "ready" | "expired"): void;
  /** Resolves when the owner's end of the pipe closes. */
  readonly pipeClosed: Promise<void>;
  /** Whether the owner said that the split is confirmed. */
  confirmed(): boolean;
}

/** Opens what the guardian needs for its journal; null where there is no such split. */
export function openJournal(
  kernel: Kernel,
  directory: string,
  id: string,
): { journal: Journal; netns: Netns | null } | null {
  const journal = readJournal(directory, id);
  return journal === null ? null : { journal, netns: reopenNetns(kernel, journal) };
}

/** Runs until the split is undone, by its owner or by the guardian; gives the process's exit status. */
export async function guard(world: Surroundings): Promise<0 | 1> {
  const first = readJournal(world.directory, world.id);
  if (first === null) return 0;
  world.say("ready");
  await ownerEnds(world, first);
  return undoAll(world);
}

/** Waits until the owner is dead or the journal gone; ends an owner that lets an unconfirmed split live on. */
async function ownerEnds(world: Surroundings, journal: Journal): Promise<void> {
  const { owner, confirmBy } = journal;
  let closed = false;
  void world.pipeClosed.then(() => (closed = true));
  // When it was said; the wall clock may be set while the owner is given time to end by itself.
  let said: number | null = null;
  while (isAlive(owner)) {
    // After the pipe has closed, either the owner dies any moment or it has undone the split and lives on.
    if (closed && readJournal(world.directory, world.id) === null) return;
    const overdue = confirmBy === null || isConfirmed(world) ? -1 : Date.now() - confirmBy;
    if (overdue >= 0) {
      if (readJournal(world.directory, world.id) === null) return;
      if (said === null) {
        world.say("expired");
        said = performance.now();
      }
      const waited = performance.now() - said;
      if (waited > GRACE_MS) end(owner.pid, waited > GRACE_MS + TERM_MS ? "SIGKILL" : "SIGTERM");
    }
    const wait =
      overdue < 0 && confirmBy !== null ? Math.min(WATCH_MS, Math.max(1, confirmBy - Date.now())) : WATCH_MS;
    const pause = new Promise((resolve) => setTimeout(resolve, isConfirmed(world) ? WATCH_MS : wait));
    await (closed ? pause : Promise.race([pause, world.pipeClosed]));
  }
}

function isConfirmed(world: Surroundings): boolean {
  return world.confirmed() || existsSync(confirmationPath(world.directory, world.id));
}

function end(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

async function undoAll(world: Surroundings): Promise<0 | 1> {
  for (let attempt = 1; ; attempt++) {
    try {
      const journal = readJournal(world.directory, world.id);
      if (journal !== null) await undoJournal(world.kernel, world.netns, world.directory, journal);
      forgetConfirmation(world.directory, world.id);
      return 0;
    } catch {
      // The journal stays, so `bifurcate release --stale` says what failed.
      if (attempt >= ATTEMPTS) return 1;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
