// Runs programs of an unpacked Debian tree on the host, through that tree's own loader: the host's libraries are
// older, and the host's packages stay as they are.

import { spawn } from "node:child_process";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { BifurcateError } from "@bifurcate/control/errors";
import { run, toolEnvironment } from "../tools.js";

/** The command that starts a program of the tree. */
export function inTree(root: string, program: string): string[] {
  const loader = path.join(root, "usr/lib64/ld-linux-x86-64.so.2");
  const libraries = path.join(root, "usr/lib/x86_64-linux-gnu");
  return [loader, "--library-path", libraries, "--argv0", path.basename(program), path.join(root, program)];
}

/**
 * Runs a program of the tree to its end.
 * @throws BifurcateError E_GUEST_BUILD when it fails.
 */
export async function runInTree(root: string, program: string, args: readonly string[]): Promise<string> {
  const [loader, ...rest] = inTree(root, program);
  return must(loader!, [...rest, ...args]);
}

/** What stands before a command that ends when this process does, however that ends (prctl(2), PR_SET_PDEATHSIG). */
export const DYING = ["setpriv", "--pdeathsig", "KILL", "--"] as const;

/**
 * Runs a program that has to succeed.
 * @throws BifurcateError E_GUEST_BUILD, or E_GUEST_CACHE when the disk is full.
 */
export async function must(command: string, args: readonly string[]): Promise<string> {
  const [program, ...words] = [...DYING, command, ...args];
  const ended = await run(program!, words);
  if (ended.status === 0) return ended.stdout;
  const said = (ended.stderr.trim() || ended.stdout.trim()).split("\n").slice(-20).join("\n");
  throw failed(command, ended.status, said);
}

/**
 * Runs a program that has to succeed and takes long.
 * @param seen Called with each line of its stdout.
 * @throws BifurcateError E_GUEST_BUILD with its last words, or E_GUEST_CACHE when the disk is full.
 */
export async function follow(command: readonly string[], seen: (line: string) => void): Promise<void> {
  const [program, ...args] = command as [string, ...string[]];
  const child = spawn(program, args, { env: toolEnvironment(), stdio: ["ignore", "pipe", "pipe"] });
  const last: string[] = [];
  const hear = (line: string): void => {
    last.push(line);
    if (last.length > 40) last.shift();
  };
  createInterface({ input: child.stdout }).on("line", (line) => {
    hear(line);
    seen(line);
  });
  createInterface({ input: child.stderr }).on("line", hear);
  const status = await new Promise<number | null>((resolve) => {
    child.on("error", (error) => {
      hear(error.message);
      resolve(127);
    });
    child.on("close", resolve);
  });
  if (status !== 0) throw failed(program, status, last.join("\n"));
}

function failed(program: string, status: number | null, said: string): BifurcateError {
  const what = `run ${path.basename(program)} for the guest`;
  // dpkg-deb's tar does not say why it could not write.
  if (/No space left on device|Wrote only \d+ of/.test(said)) {
    return new BifurcateError("E_GUEST_CACHE", { what, why: "the disk is full" });
  }
  return new BifurcateError("E_GUEST_BUILD", {
    what,
    why: `it ended with status ${String(status)}\n${said}`,
  });
}

/** The one name in a folder that matches. */
export async function only(folder: string, pattern: RegExp): Promise<string> {
  const found = (await readdir(folder)).filter((name) => pattern.test(name));
  if (found.length === 1) return path.join(folder, found[0]!);
  throw new BifurcateError("E_GUEST_BUILD", {
    what: `look for ${String(pattern)} in ${folder}`,
    why: `there are ${found.length} of it`,
  });
}
