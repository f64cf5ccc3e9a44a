// A user and a network namespace of one's own, in which the rest runs: that takes no right, and in there the process has the rights that an AF_XDP socket asks for, over its own interfaces alone.

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control";

/** What is leased, and for which program. */
export interface ForeignRequest {
  readonly device: string;
  readonly flows: readonly string[];
  readonly transmit: "none" | "own" | "raw";
  /** With {interface}, {socket} and {map} where it is to say those. */
  readonly command: readonly string[];
  readonly json: boolean;
}

/** unshare(1) and setpriv(1), of util-linux. */
const UNSHARE = ["--user", "--map-root-user", "--net"];
/** Ends what is inside in good order when this process is killed. */
const WITH_US = ["setpriv", "--pdeathsig", "TERM", "--"];

/** The exit status of a process, as a shell tells it. */
export function statusOf(status: number | null, signal: NodeJS.Signals | null): number {
  return status ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

/**
 * Leases from within namespaces of its own and runs the program there.
 * @returns The exit status, when all has been said.
 * @throws E_MISSING_TOOL, E_SYSTEM where there can be no such namespaces.
 */
export async function runInOwnNamespaces(request: ForeignRequest): Promise<number> {
  const inside = fileURLToPath(new URL("inside.js", import.meta.url));
  const args = [...UNSHARE, ...WITH_US, process.execPath, inside, JSON.stringify(request)];
  const child = spawn("unshare", args, { stdio: "inherit" });
  const end = (): void => void child.kill("SIGTERM");
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, end);
  try {
    return await new Promise((resolve, reject) => {
      child.on("error", (cause: NodeJS.ErrnoException) => {
        const what = "make namespaces with unshare";
        const code = cause.code === "ENOENT" ? "E_MISSING_TOOL" : "E_SYSTEM";
        const next = "Install Debian's package util-linux.";
        reject(new BifurcateError(code, { what, why: cause.message, next, cause }));
      });
      child.on("close", (status, signal) => resolve(statusOf(status, signal)));
    });
  } finally {
    for (const signal of signals) process.off(signal, end);
  }
}
