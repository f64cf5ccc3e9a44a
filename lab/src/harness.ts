// For tests: runs the built command line as a user would, and follows a split that goes on running.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { run, toolEnvironment, type Ended } from "./tools.js";

/** The command that a user calls. */
export const cliPath = fileURLToPath(new URL("../../bifurcate/bin/bifurcate.mjs", import.meta.url));

/** The checkout, where the examples are. */
export const checkout = fileURLToPath(new URL("../..", import.meta.url));

/** Runs `bifurcate ARGS` to its end. */
export function cli(...args: string[]): Promise<Ended> {
  return run(process.execPath, [cliPath, ...args]);
}

/** The error object that a command with --json left on stderr. */
export function errorOf(ended: Ended): { code: string; what: string; why: string; next: string } {
  const line = ended.stderr.trim().split("\n").at(-1) ?? "";
  return (JSON.parse(line) as { error: { code: string; what: string; why: string; next: string } }).error;
}

/** One object of `split --json`. */
export interface StreamEvent {
  readonly event: string;
  readonly [key: string]: unknown;
}

const running = new Set<RunningSplit>();

/** Kills the splits that a failed test has left running, so that the next one does not meet them. */
export async function endAll(): Promise<void> {
  await Promise.all([...running].map((split) => split.end("SIGKILL")));
}

/** A split's process, wherever it runs. */
export interface SplitProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly ended: Promise<number | null>;
  /** Where it runs on this machine. */
  readonly pid?: number | undefined;
  kill(signal: NodeJS.Signals): void;
}

/** Starts `bifurcate COMMAND ARGS --json` here: of a command that runs ports, as `split` does. */
export function startHere(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  command = "split",
): SplitProcess {
  const child = spawn(process.execPath, [cliPath, command, ...args, "--json"], {
    cwd: checkout,
    env: { ...toolEnvironment(), ...environment },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const { stdin, stdout, stderr, pid } = child;
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  return { stdin, stdout, stderr, pid, ended, kill: (signal) => void child.kill(signal) };
}

/** `bifurcate split ... --json`, running here, or as a process in a guest. */
export class RunningSplit {
  readonly events: StreamEvent[] = [];
  readonly ended: Promise<Ended>;
  private readonly child: SplitProcess;
  private stderr = "";
  private readonly waiting = new Set<() => void>();

  constructor(split: readonly string[] | SplitProcess, environment: NodeJS.ProcessEnv = {}) {
    this.child = "stdin" in split ? split : startHere(split, environment);
    running.add(this);
    let stdout = "";
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      stdout += `${line}\n`;
      this.events.push(JSON.parse(line) as StreamEvent);
      this.wake();
    });
    this.child.stderr.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    this.child.stdin.on("error", () => undefined);
    this.ended = this.child.ended.then((status) => {
      running.delete(this);
      this.wake();
      return { status, stdout, stderr: this.stderr };
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** What it has said on stderr so far. */
  get told(): string {
    return this.stderr;
  }

  /** The first event of that name (and that kind), when it comes. Rejects with the command's own words if it ends before. */
  async event(name: string, such: (event: StreamEvent) => boolean = () => true): Promise<StreamEvent> {
    const is = (each: StreamEvent): boolean => each.event === name && such(each);
    const ended = this.ended.then(() => true);
    for (;;) {
      const found = this.events.find(is);
      if (found !== undefined) return found;
      const more = new Promise<boolean>((resolve) => this.waiting.add(() => resolve(false)));
      if ((await Promise.race([ended, more])) && !this.events.some(is)) {
        throw new Error(`the split ended without "${name}": ${this.stderr}`);
      }
    }
  }

  /** Writes a line on its stdin. */
  type(line: string): void {
    this.child.stdin.write(`${line}\n`);
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals = "SIGINT"): Promise<Ended> {
    this.child.kill(signal);
    return this.ended;
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }
}
