// One program of the demo: started in a namespace, listened to line by line, and ended by its own process id.

import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { messageOf } from "@bifurcate/control/errors";
import { spawnIn } from "../tools.js";

/** A running program. */
export class Program {
  /** Resolves with the exit status (null when a signal ended it). */
  readonly ended: Promise<number | null>;
  /** What it last wrote on stderr, at most a few lines. */
  readonly complaints: string[] = [];
  private readonly child: ChildProcess;
  private running = true;

  /**
   * @param netns Where it runs.
   * @param line Called with each line of its stdout.
   */
  constructor(
    readonly name: string,
    netns: string,
    command: string,
    args: readonly string[],
    line: (text: string) => void,
  ) {
    this.child = spawnIn(netns, command, args, { stdio: ["pipe", "pipe", "pipe"] });
    createInterface({ input: this.child.stdout! }).on("line", line);
    createInterface({ input: this.child.stderr! }).on("line", (text) => {
      this.complaints.push(text);
      if (this.complaints.length > 8) this.complaints.shift();
    });
    this.child.stdin!.on("error", () => undefined);
    this.ended = new Promise((resolve) => {
      this.child.on("error", (error) => {
        this.complaints.push(messageOf(error));
        this.running = false;
        resolve(127);
      });
      this.child.on("close", (status) => {
        this.running = false;
        resolve(status);
      });
    });
  }

  /** Asks it to end, and waits until it has; after `graceMs` it is killed. */
  async stop(signal: NodeJS.Signals = "SIGINT", graceMs = 30_000): Promise<number | null> {
    if (!this.running) return this.ended;
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill("SIGKILL"), graceMs);
    const status = await this.ended;
    clearTimeout(timer);
    return status;
  }

  /** Whether it has not ended yet. */
  get alive(): boolean {
    return this.running;
  }
}
