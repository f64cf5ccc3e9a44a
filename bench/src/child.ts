// Child processes of a bench: started, watched, ended by the id that was started, never by name.
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const live = new Set<ChildProcessWithoutNullStreams>();
process.once("exit", () => {
  for (const child of live) child.kill("SIGKILL");
});

/** A running program whose output is collected. */
export class Child {
  output = "";
  readonly ended: Promise<number>;
  readonly #child: ChildProcessWithoutNullStreams;

  constructor(
    readonly command: string,
    readonly args: readonly string[],
    options: { readonly cwd?: string; readonly env?: Record<string, string> } = {},
  ) {
    this.#child = spawn(command, args, {
      ...options,
      env: { ...process.env, ...options.env },
      stdio: "pipe",
    });
    live.add(this.#child);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on("data", (chunk: Buffer) => (this.output += chunk.toString()));
    }
    this.#child.stdin.on("error", () => undefined); // it ended before it read: `ended` tells
    this.ended = new Promise((resolve, reject) => {
      this.#child.on("error", reject);
      this.#child.on("close", (status) => {
        live.delete(this.#child);
        resolve(status ?? 128);
      });
    });
    this.ended.catch(() => undefined); // whoever awaits it still sees the error
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  type(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Ends its stdin. */
  close(): void {
    this.#child.stdin.end();
  }

  /** Waits until the output holds `pattern`; an error with the output where it does not come in time. */
  async saw(pattern: RegExp, milliseconds = 30_000): Promise<void> {
    const deadline = Date.now() + milliseconds;
    let gone = false;
    const end = this.ended.then(
      () => (gone = true),
      () => (gone = true),
    );
    while (!pattern.test(this.output)) {
      if (gone || Date.now() > deadline) {
        throw new Error(
          `'${this.line}' did not print ${String(pattern)}; it printed:\n${this.output.slice(-3000)}`,
        );
      }
      await Promise.race([sleep(20), end]);
    }
  }

  /** SIGTERM, and SIGKILL where that is not enough within 5 s. */
  async end(): Promise<number> {
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    try {
      return await this.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  get line(): string {
    return [this.command, ...this.args].map((word) => (/[\s|*?]/.test(word) ? `'${word}'` : word)).join(" ");
  }
}

/** CPU time of a process with its threads in nanoseconds, user and system: /proc/PID/stat fields 14 and 15. */
export function cpuTime(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 1e7; // USER_HZ is 100 on every Linux ABI in use here
}

/** Runs a program to its end and gives its output; an error where its status is not 0. */
export async function output(
  command: string,
  args: readonly string[],
  options?: { readonly cwd?: string },
): Promise<string> {
  const child = new Child(command, args, options);
  const status = await child.ended;
  if (status !== 0) throw new Error(`'${child.line}' ended with status ${status}:\n${child.output}`);
  return child.output;
}

/** The last line of an output that is a JSON object. */
export function lastJson<T>(text: string): T {
  const line = text
    .trim()
    .split("\n")
    .reverse()
    .find((one) => one.startsWith("{"));
  if (line === undefined) throw new Error(`no JSON line in:\n${text.slice(-2000)}`);
  return JSON.parse(line) as T;
}
