// When a running command has to end: a signal, the time given, or nobody left who reads what it says.

import { isatty } from "node:tty";

/** Whether a terminal was there at the start; one that was closed is none any more. */
const terminal = [0, 1, 2].some((descriptor) => isatty(descriptor));

/** Why it ended. */
export type StopReason = "SIGINT" | "SIGTERM" | "SIGHUP" | "seconds" | "error" | "ended" | "output closed";

/** Collects the first reason to end, and tells it through an AbortSignal. */
export class Stop {
  private readonly controller = new AbortController();
  private readonly listeners: (readonly [NodeJS.Signals, () => void])[] = [];
  private timer: NodeJS.Timeout | undefined;
  private first: StopReason | undefined;
  /** As SIGPIPE ends tcpdump: a split that nobody watches any more (`| head`) must not go on for ever. */
  private readonly unread = (): void => this.because("output closed");

  /** Listens from now on: a signal no longer ends the process by itself, so that the clean-up is never cut short. */
  constructor() {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      const listener = (): void => this.because(signal);
      process.on(signal, listener);
      this.listeners.push([signal, listener]);
    }
    for (const stream of [process.stdout, process.stderr]) stream.on("error", this.unread);
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** The first reason; undefined while there is none. */
  get reason(): StopReason | undefined {
    return this.first;
  }

  /** Ends after a time. */
  after(seconds: number): void {
    // setTimeout takes no more than 2^31 - 1 ms; the option allows 30 days.
    const end = Date.now() + seconds * 1000;
    const wait = (): void => {
      const left = end - Date.now();
      if (left <= 0) this.because("seconds");
      else this.timer = setTimeout(wait, Math.min(left, 86_400_000));
    };
    wait();
  }

  because(reason: StopReason): void {
    this.first ??= reason;
    this.controller.abort();
  }

  /** Gives the signals back. Call it when everything has been restored. */
  dispose(): void {
    clearTimeout(this.timer);
    for (const [signal, listener] of this.listeners) process.off(signal, listener);
    for (const stream of [process.stdout, process.stderr]) stream.off("error", this.unread);
  }
}

/**
 * Ends the process by SIGHUP where a terminal was closed: Node would end with an abort, since it cannot give a
 * terminal that is gone its modes back. Does nothing where the signal came without a terminal.
 */
export function endByHangUp(): void {
  if (terminal) process.kill(process.pid, "SIGHUP");
}
