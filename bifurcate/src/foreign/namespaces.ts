// A user and a network namespace of one's own, in which the rest runs: that takes no right, and in there the process has the rights that an AF_XDP socket asks for, over its own interfaces alone.

import { spawn, spawnSync } from "node:child_process";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";

/** What is leased, and for which program. */
export interface ForeignRequest {
  readonly device: string;
  readonly flows: readonly string[];
  readonly transmit: "none" | "own" | "raw";
  /** With {interface}, {socket} and {map} where it is to say those. */
  readonly command: readonly string[];
  readonly json: boolean;
}

/** The same, as it is told inside. */
export interface InsideRequest extends ForeignRequest {
  /** The process outside, which may have ended before what is inside was set to end with it (prctl(2)). */
  readonly outside: number;
}

/** unshare(1) and setpriv(1), of util-linux. */
const UNSHARE = ["--user", "--map-root-user", "--net"];
/** Ends what is inside in good order when this process is killed. */
const WITH_US = ["setpriv", "--pdeathsig", "TERM", "--"];

/** The exit status of a process, as a shell tells it. */
export function statusOf(status: number | null, signal: NodeJS.Signals | null): number {
  return status ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

/** Tries it, so that what is refused here is not taken for an end of the program. @throws E_MISSING_TOOL, E_SYSTEM */
function checkNamespaces(): void {
  const what = "make a user and a network namespace";
  const { error, status, stderr } = spawnSync("unshare", [...UNSHARE, ...WITH_US, "true"], {
    encoding: "utf8",
  });
  if (error !== undefined) {
    const next = "Install Debian's package util-linux.";
    throw new BifurcateError("E_MISSING_TOOL", { what, why: error.message, next, cause: error });
  }
  if (status === 0) return;
  throw new BifurcateError("E_SYSTEM", {
    what,
    why: stderr.trim() || `unshare ended with status ${String(status)}`,
    next: "Let users make user namespaces: see user.max_user_namespaces (namespaces(7)) and the machine's own switches.",
  });
}

/**
 * Leases from within namespaces of its own and runs the program there.
 * @returns The exit status, when all has been said.
 * @throws E_MISSING_TOOL, E_SYSTEM where there can be no such namespaces.
 */
export async function runInOwnNamespaces(request: ForeignRequest): Promise<number> {
  checkNamespaces();
  const inside = fileURLToPath(new URL("inside.js", import.meta.url));
  const told: InsideRequest = { ...request, outside: process.pid };
  const args = [...UNSHARE, ...WITH_US, process.execPath, inside, JSON.stringify(told)];
  const child = spawn("unshare", args, { stdio: "inherit" });
  const end = (): void => void child.kill("SIGTERM");
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, end);
  try {
    return await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (status, signal) => resolve(statusOf(status, signal)));
    });
  } finally {
    for (const signal of signals) process.off(signal, end);
  }
}
