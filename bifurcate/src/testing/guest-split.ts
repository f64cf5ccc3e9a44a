// For tests of splits in the guest: shell commands there, and commands that are to fail.

import type { Guest } from "@bifurcate/lab/guest/guest";

/** Seconds that one command may take in a guest on a busy machine. */
const LIMIT = 200;

/** The error object of a command that is to fail. */
export async function failure(
  guest: Guest,
  words: readonly string[],
): Promise<{ status: number; code: string; why: string }> {
  const { status, stdout, stderr } = await guest.run(["bifurcate", ...words, "--json"], { limit: LIMIT });
  const line = stderr.trim().split("\n").at(-1) ?? "";
  if (!line.startsWith("{")) throw new Error(`it did not fail: ${status} ${stdout} ${stderr}`);
  const { error } = JSON.parse(line) as { error: { code: string; why: string } };
  return { status, code: error.code, why: error.why };
}

/** Runs a shell command that is to succeed; gives what it printed. */
export async function shell(guest: Guest, script: string): Promise<string> {
  const { status, stdout, stderr } = await guest.run(["sh", "-c", script], { limit: LIMIT });
  if (status !== 0) throw new Error(`${script}: status ${status}: ${stdout}${stderr}`);
  return stdout;
}
