// For tests: the command line on a terminal of its own (pty(7)), whose keys the test types and whose screen it reads.

import { spawn, spawnSync } from "node:child_process";
import { closeSync } from "node:fs";
import { ReadStream } from "node:tty";
import koffi from "koffi";
import { expect } from "vitest";
import { cliPath } from "../../harness.js";

const libutil = koffi.load("libutil.so.1");
const openpty = libutil.func(
  "int openpty(_Out_ int *master, _Out_ int *slave, void *name, void *termios, void *size)",
);

/** The command line on a terminal of 100 columns and 30 rows. */
export class Terminal {
  /** What it has shown so far. */
  shown = "";
  /** Exit status, when the command has ended. */
  readonly status: Promise<number | null>;
  private readonly keys: ReadStream;

  constructor(words: readonly string[]) {
    const [master, slave] = [[0], [0]];
    if (openpty(master, slave, null, null, null) !== 0) throw new Error("openpty: no terminal");
    const terminal = slave[0]!;
    spawnSync("stty", ["rows", "30", "cols", "100"], { stdio: [terminal, "ignore", "inherit"] });
    const child = spawn(process.execPath, [cliPath, ...words], { stdio: [terminal, terminal, terminal] });
    this.status = new Promise((resolve) => child.once("close", resolve));
    closeSync(terminal);
    this.keys = new ReadStream(master[0]!);
    this.keys.setEncoding("utf8").on("data", (text: string) => (this.shown += text));
    // When the last process at the other end has closed it, a read fails: that is its end.
    this.keys.on("error", () => undefined);
    void this.status.then(() => this.keys.destroy());
  }

  type(text: string): void {
    this.keys.write(text);
  }

  /**
   * Waits until it shows that, or has ended.
   * @param limit Longest wait, ms.
   */
  async shows(pattern: RegExp, limit: number): Promise<void> {
    const ended = this.status.then((status) => {
      throw new Error(`it ended with ${status} before it showed ${pattern}: ${this.shown}`);
    });
    const seen = expect.poll(() => this.shown, { timeout: limit, interval: 100 }).toMatch(pattern);
    await Promise.race([seen, ended]);
  }
}
