// Runs the few programs that the lab is made with: ip(8) from iproute2, and commands inside a namespace.

import { spawn } from "node:child_process";
import type { ChildProcess, SpawnOptions } from "node:child_process";
import { readFileSync } from "node:fs";
import { BifurcateError } from "@bifurcate/control/errors";

/** A child's environment now: system programs stand in sbin, which an ordinary user's PATH lacks. */
export function toolEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
}

/** What a program that ended has said. */
export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end.
 * @param input What it reads on stdin.
 * @throws BifurcateError E_MISSING_TOOL when it is not installed. A status other than 0 is not an error here.
 */
export function run(command: string, args: readonly string[], input = ""): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: toolEnvironment(), stdio: ["pipe", "pipe", "pipe"] });
    const said = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => (said.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said.stderr += text));
    child.stdin.on("error", () => undefined).end(input);
    child.on("error", (error) =>
      reject(
        new BifurcateError("E_MISSING_TOOL", {
          what: `run ${command} ${args.join(" ")}`,
          why: error.message,
          next: command === "ip" ? "Install it: apt-get install iproute2" : `Install ${command}.`,
          cause: error,
        }),
      ),
    );
    child.on("close", (status) => resolve({ status, ...said }));
  });
}

/**
 * Runs ip(8).
 * @param commands With several, they are given to one `ip -batch -` in order.
 * @param netns The namespace to run in; the caller's own when left out.
 * @throws BifurcateError E_LAB with what ip answered.
 */
export async function ip(commands: readonly string[], netns?: string): Promise<string> {
  const where = netns === undefined ? [] : ["-n", netns];
  const ended =
    commands.length === 1
      ? await run("ip", [...where, ...commands[0]!.split(" ")])
      : await run("ip", [...where, "-batch", "-"], `${commands.join("\n")}\n`);
  if (ended.status === 0) return ended.stdout;
  throw new BifurcateError("E_LAB", {
    what: `ip ${[...where, commands.length === 1 ? commands[0] : `-batch ('${commands.join("', '")}')`].join(" ")}`,
    why: ended.stderr.trim() || `ip ended with status ${ended.status}`,
  });
}

/** The arguments that run a command in a namespace, for spawn or execFile: ["ip", ["netns", "exec", ...]]. */
export function inNetns(netns: string, command: string, args: readonly string[]): [string, string[]] {
  return ["ip", ["netns", "exec", netns, command, ...args]];
}

/** Starts a command in a namespace. */
export function spawnIn(
  netns: string,
  command: string,
  args: readonly string[],
  options: SpawnOptions = {},
): ChildProcess {
  const [program, all] = inNetns(netns, command, args);
  return spawn(program, all, { env: toolEnvironment(), ...options });
}

/** Bits of capability sets: include/uapi/linux/capability.h. */
const CAPABILITIES = { CAP_NET_ADMIN: 12n, CAP_SYS_ADMIN: 21n } as const;

/** Throws E_NOT_PRIVILEGED naming the capabilities that making namespaces needs and this process lacks. */
export function needNamespaceRights(what: string): void {
  const status = readFileSync("/proc/self/status", "utf8");
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
  const missing = Object.entries(CAPABILITIES)
    .filter(([, bit]) => ((effective >> bit) & 1n) === 0n)
    .map(([name]) => name);
  if (missing.length === 0) return;
  throw new BifurcateError("E_NOT_PRIVILEGED", {
    what,
    why: `the process lacks ${missing.join(" and ")}`,
    data: { missing },
  });
}
