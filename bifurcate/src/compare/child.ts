// The processes of a measurement: sender, program, echo. Started with one JSON argument, asked by messages, ended by pid.

import { spawn, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";
import { netnsPath } from "@bifurcate/control/prepare";

/** What a process answers: a value, or why there is none. */
export type Answer = { readonly value: unknown } | { readonly failed: { code: string; why: string } };

/** How long beyond its own work a process may take to answer, in milliseconds. */
const PATIENCE_MS = 60_000;

/** A process of the measurement. */
export class Child {
  private readonly process: ChildProcess;
  private said = "";
  private readonly waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  private ended = false;
  private stopped = false;

  /**
   * Starts `NAME-main.js`; it answers once when it is ready.
   * @param netns The namespace to run in; its parent's when null.
   */
  constructor(
    private readonly name: "sender" | "subject" | "echo-server" | "echo-client",
    netns: string | null,
    settings: unknown,
  ) {
    const main = fileURLToPath(new URL(`./${name}-main.js`, import.meta.url));
    const own = [process.execPath, main, JSON.stringify(settings)];
    // nsenter puts itself in the place of the command: the pid, and the channel for messages, stay.
    const words = netns === null ? own : ["nsenter", `--net=${netnsPath(netns)}`, ...own];
    this.process = spawn(words[0]!, words.slice(1), { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.process.stderr!.setEncoding("utf8").on("data", (text: string) => (this.said += text));
    this.process.on("message", (answer: Answer) => {
      const next = this.waiting.shift();
      if ("value" in answer) next?.resolve(answer.value);
      else next?.reject(this.failure(`${answer.failed.code}: ${answer.failed.why}`));
    });
    const gone = (why: string): void => {
      this.ended = true;
      for (const next of this.waiting.splice(0)) next.reject(this.failure(why));
    };
    this.process.on("error", (error) => gone(error.message));
    this.process.on("exit", (status, signal) =>
      gone(`it ended (${signal ?? status})${this.said === "" ? "" : `: ${this.said.trim().slice(-500)}`}`),
    );
  }

  /** It runs, as far as is known. */
  get alive(): boolean {
    return !this.ended;
  }

  /** Waits for the first answer. */
  ready<T>(): Promise<T> {
    return this.answer<T>(PATIENCE_MS);
  }

  /** Asks, and waits for the answer. `seconds`: how long the work itself takes. */
  ask<T>(request: unknown, seconds = 0): Promise<T> {
    if (!this.ended) this.process.send(request as object);
    return this.answer<T>(seconds * 1000 + PATIENCE_MS);
  }

  /** Stops it where it is (SIGSTOP), or lets it go on. */
  hold(stopped: boolean): void {
    this.stopped = stopped;
    this.process.kill(stopped ? "SIGSTOP" : "SIGCONT");
  }

  /** Ends it; what it holds it gives back when its channel closes. */
  async end(): Promise<void> {
    if (this.stopped) this.hold(false);
    if (this.ended) return;
    const over = new Promise<void>((resolve) => this.process.once("exit", () => resolve()));
    if (this.process.connected) this.process.disconnect();
    const timer = setTimeout(() => this.process.kill("SIGKILL"), PATIENCE_MS);
    await over;
    clearTimeout(timer);
  }

  private answer<T>(milliseconds: number): Promise<T> {
    if (this.ended) return Promise.reject(this.failure(`it ended: ${this.said.trim().slice(-500)}`));
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(this.failure(`it did not answer within ${Math.round(milliseconds / 1000)} seconds`));
      }, milliseconds);
      this.waiting.push({
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value as T);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  private failure(why: string): BifurcateError {
    return new BifurcateError("E_MEASUREMENT", { what: `measure with the ${this.name}`, why });
  }
}
