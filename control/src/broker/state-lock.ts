// One broker has a folder of state: two that take its leases for their own would each take away what the other makes.
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, messageOf } from "../errors.js";
import { isAlive, ownIdentity, type ProcessIdentity } from "../facts/processes.js";
import type { FileLock, Locals } from "./machine.js";

/** The file in the folder that a broker has locked (flock(2)). It stays; what counts is the lock. */
export const LOCK = "broker.lock";

/** What the holder writes into the file, for whoever finds it locked, and takes out again when it gives the lock back. */
interface Holder extends ProcessIdentity {
  readonly socket: string;
}

/**
 * Locks a broker's state until the lock is closed or the process ends, killed or not: the next broker has it at once.
 * @param socket Where this broker is about to listen.
 * @throws E_BROKER_RUNNING: a broker has it, which is named. E_SYSTEM: the folder, or its file, is not to be had.
 */
export function lockState(machine: Locals, state: string, socket: string): FileLock {
  const path = join(state, LOCK);
  let lock: FileLock | null;
  try {
    mkdirSync(state, { recursive: true, mode: 0o700 });
    lock = machine.lock(path);
  } catch (thrown) {
    throw new BifurcateError("E_SYSTEM", {
      what: `lock the broker's state in ${state}`,
      why: messageOf(thrown),
      next: "Give the folder, and what is in it, to the broker's user, or name another with --state.",
      cause: thrown,
    });
  }
  if (lock === null) throw taken(state, path);
  const holder: Holder = { ...ownIdentity(), socket };
  said(() => writeFileSync(path, `${JSON.stringify(holder)}\n`));
  let held = true;
  const close = (): void => {
    // Before the lock goes: what is written after is the next one's.
    if (held) said(() => truncateSync(path));
    held = false;
    lock.close();
  };
  return { close };
}

/** On a full disk, say, it is not: the lock is held, or given back, all the same. */
function said(write: () => void): void {
  try {
    write();
  } catch {
    // Only the holder is not named then, or one that is no more.
  }
}

function taken(state: string, path: string): BifurcateError {
  const holder = read(path);
  const who = holder === null ? "another broker" : `process ${holder.pid}, a broker at ${holder.socket},`;
  const first = holder === null ? `the one that has ${path} open` : `process ${holder.pid}`;
  return new BifurcateError("E_BROKER_RUNNING", {
    what: `lock the broker's state in ${state}`,
    why: `${who} has it`,
    next: `End ${first} first: the new one adopts its leases. One beside it needs a --state of its own.`,
    data: { state, pid: holder?.pid ?? null, socket: holder?.socket ?? null },
  });
}

/** Who has it; null where that is not written down (yet), or by one that was killed since. */
function read(path: string): Holder | null {
  try {
    const { pid, startTime, socket } = JSON.parse(readFileSync(path, "utf8")) as Partial<Holder>;
    if (!Number.isInteger(pid) || typeof startTime !== "string" || typeof socket !== "string") return null;
    const holder = { pid: pid!, startTime, socket };
    return isAlive(holder) ? holder : null;
  } catch {
    return null;
  }
}
