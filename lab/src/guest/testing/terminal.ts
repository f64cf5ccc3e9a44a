// For tests: the command line on a terminal of its own (pty(7)), whose keys the test types and whose screen it reads.

import { spawn, spawnSync } from "node:child_process";
import { closeSync } from "node:fs";
import { ReadStream } from "node:tty";
import koffi from "koffi";
import { expect, onTestFinished } from "vitest";
import { cliPath } from "../../harness.js";

const libutil = koffi.load("libutil.so.1");
const openpty = libutil.func(
  "int openpty(_Out_ int *master, _Out_ int *slave, void *name, void *termios, void *size)",
);

const fcntl = koffi.load("libc.so.6").func("int fcntl(int descriptor, int command, ...)");
/** F_SETFD and FD_CLOEXEC of include/uapi/asm-generic/fcntl.h: a child that holds the master keeps the terminal open. */
const [F_SETFD, FD_CLOEXEC] = [2, 1];

/** The command line on a terminal of 100 columns and 30 rows; it ends with the test. */
export class Terminal {
  /** What it has shown so far. */
  shown = "";
  /** Exit status or the signal's name, when the command has ended. */
  readonly ended: Promise<number | NodeJS.Signals>;
  private readonly keys: ReadStream;

  constructor(words: readonly string[]) {
    const [master, slave] = [[0], [0]];
    if (openpty(master, slave, null, null, null) !== 0) throw new Error("openpty: no terminal");
    fcntl(master[0]!, F_SETFD, "int", FD_CLOEXEC);
    const terminal = slave[0]!;
    spawnSync("stty", ["rows", "30", "cols", "100"], { stdio: [terminal, "ignore", "inherit"] });
    // The terminal controls it (setsid(1) runs it in its own place), so that it hears when that is closed.
    const command = ["--ctty", process.execPath, cliPath, ...words];
    const child = spawn("setsid", command, { stdio: [terminal, terminal, terminal] });
    this.ended = new Promise((resolve) =>
      child.once("close", (status, signal) => resolve(signal ?? status ?? -1)),
    );
    onTestFinished(async () => {
      child.kill("SIGKILL"); // its guest ends with it
      await this.ended;
    });
    closeSync(terminal);
    this.keys = new ReadStream(master[0]!);
    this.keys.setEncoding("utf8").on("data", (text: string) => (this.shown += text));
    // When the last process at the other end has closed it, a read fails: that is its end.
    this.keys.on("error", () => undefined);
    void this.ended.then(() => this.keys.destroy());
  }

  type(text: string): void {
    this.keys.write(text);
  }

  /** Closes the terminal, as its window is closed. */
  hangUp(): void {
    this.keys.destroy();
  }

  /**
   * Waits until it shows that, or has ended.
   * @param limit Longest wait, ms.
   */
  async shows(pattern: RegExp, limit: number): Promise<void> {
    const ended = this.ended.then((how) => {
      throw new Error(`it ended with ${how} before it showed ${pattern}: ${this.shown}`);
    });
    const seen = expect.poll(() => this.shown, { timeout: limit, interval: 100 }).toMatch(pattern);
    await Promise.race([seen, ended]);
  }
}
