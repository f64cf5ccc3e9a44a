// The folders of one boot: one for sockets, console and packed project, one for what its disks get; and what others left.

import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { BifurcateError, errnoOf } from "@bifurcate/control/errors";

/** What names of this process's namespace begin with: a process id says nothing in another one. */
function prefix(): string {
  const namespace = /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0";
  return `bifurcate-guest-${namespace}-`;
}

/** Where QEMU puts what is written to a guest's disks when TMPDIR says nothing: more than memory should hold. */
const LARGE = "/var/tmp";

/** The folder for what is written to a guest's disks: the run's own where TMPDIR says where files go. */
export function makeOverlayFolder(run: string): string {
  if (process.env["TMPDIR"] !== undefined) return run;
  try {
    return makeRunFolder(LARGE);
  } catch {
    return run;
  }
}

/**
 * Does what writes to the temporary folder.
 * @throws BifurcateError E_GUEST when its disk is full, and what `work` throws otherwise.
 */
export async function withTemporaryRoom<Result>(work: () => Result | Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    // A tool that met a full disk is told as if it had written to the cache.
    const full =
      error instanceof BifurcateError ? error.code === "E_GUEST_CACHE" : errnoOf(error) === "ENOSPC";
    if (!full) throw error;
    throw new BifurcateError("E_GUEST", {
      what: "make the guest's temporary files",
      why: `the disk of ${tmpdir()} is full`,
      next: "Free some space, or name another folder with TMPDIR.",
      cause: error,
    });
  }
}

/**
 * Removes folders of processes that are gone: one that was killed could not do so itself. Where a process id has come
 * round again, its folder stays until that process has ended too.
 */
export function removeLeftFolders(parents: readonly string[] = [tmpdir(), LARGE]): void {
  for (const parent of parents.filter((each) => existsSync(each))) removeLeft(parent);
}

function removeLeft(parent: string): void {
  const begin = prefix();
  for (const name of readdirSync(parent)) {
    const pid = name.startsWith(begin) ? /^(\d+)-/.exec(name.slice(begin.length))?.[1] : undefined;
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    try {
      rmSync(path.join(parent, name), { recursive: true, force: true });
    } catch {
      // Another user's: not ours to remove.
    }
  }
}

/** A new folder, named after this process. What others left there is removed first. */
export function makeRunFolder(parent = tmpdir()): string {
  removeLeft(parent);
  return mkdtempSync(path.join(parent, `${prefix()}${process.pid}-`));
}
