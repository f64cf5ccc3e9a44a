// An open port: runs handlers on its queues, counts, and gives everything back when it is closed.

import { BifurcateError } from "@bifurcate/control";
import type { Batch } from "./batch.js";
import { batches } from "./batches.js";
import type { Handler } from "./handler.js";
import type { Counters, NativeRunOptions, Obtained } from "./native.js";
import { openPorts } from "./open-ports.js";
import { runFile, runHere, type HandlerFile, type Running, type RunOptions, type RunPort } from "./run.js";

/** How frames travel. */
export interface PortPath {
  readonly backend: "af_xdp" | "af_packet" | "loopback";
  /** The card's queues that have a socket, in the order of `context.queue`. */
  readonly queues: readonly number[];
  /** Whether the kernel copies each frame, or the card writes into the pool itself. */
  readonly mode: "copy" | "zero-copy" | "memory";
  /** Where the XDP program runs: in the driver, or in the kernel's generic place after it. */
  readonly xdp: "driver" | "generic" | null;
  /** What brings the flow here. */
  readonly steering: "ntuple" | "xdp" | "packet-socket" | "none";
  readonly obtained: Obtained;
  /** Every step down from the best way, and why. */
  readonly notes: readonly string[];
}

/** Counters since the port was opened; `queues` in the order of `path.queues`. */
export interface PortStats extends Counters {
  readonly queues: readonly Counters[];
}

/** Handlers in Rust, by name. */
export type NativeHandler = "drop" | "count" | "reflect" | "forward";

/** How to run a handler in Rust. */
export interface NativeRunPortOptions {
  /** Where `forward` sends to. */
  readonly to?: Port | undefined;
  /** Which core each queue's thread is bound to. */
  readonly cores?: readonly number[] | undefined;
  /** Ends the run. */
  readonly signal?: AbortSignal | undefined;
}

/** How close() waits. */
export interface CloseOptions {
  /** How long a handler may take to come back from its batch before its thread is ended; 2000 ms when left out. */
  readonly graceMs?: number | undefined;
}

/** What stands behind a port: a split's transaction, or nothing. */
export interface Backing {
  readonly path: PortPath;
  /** The split's name for `bifurcate release`, null for what is no split. */
  readonly id: string | null;
  /** Whose view of the flow ends, e.g. "nftables and iptables". */
  readonly bypasses: readonly string[];
  /** Keeps a split that would undo itself otherwise. */
  confirm(): void;
  /** Gives the flow back, calls `shut`, which ends what runs and closes the device, and restores the card. */
  close(shut: () => Promise<void>): Promise<void>;
}

const GRACE_MS = 2_000;

/** An open port. */
export class Port {
  /** How frames travel, and what was stepped down from. */
  readonly path: PortPath;
  private running: Running | undefined;
  private closing: Promise<void> | undefined;
  private last: PortStats | undefined;
  private failure: ((error: Error) => void) | undefined;
  private failed: Error | undefined;

  /** @internal `open` and `split` make ports. */
  constructor(
    private readonly inner: RunPort,
    private readonly backing: Backing,
  ) {
    this.path = backing.path;
    openPorts.add(this);
  }

  /** The interface's name, or "loopback". */
  get name(): string {
    return this.inner.name;
  }

  /** The split's name for `bifurcate release`; null for what is no split. */
  get id(): string | null {
    return this.backing.id;
  }

  /** Whose view of the flow ends while it is here, e.g. "nftables and iptables". */
  get bypasses(): readonly string[] {
    return this.backing.bypasses;
  }

  /** Keeps a split that was asked to undo itself after `confirmSeconds`. */
  confirm(): void {
    this.backing.confirm();
  }

  /** The counters now; after close(), as they were then. */
  get stats(): PortStats {
    return this.last ?? this.count();
  }

  /** Whether close() has been called. */
  get closed(): boolean {
    return this.closing !== undefined;
  }

  /**
   * Runs a handler until stop() or close() is called, the signal aborts, or the handler fails.
   *
   * A function runs on the calling thread and gives way to timers and signals between turns. A file runs in one
   * worker a queue: the way for real traffic. (A function cannot be moved to another thread:
   * docs/decisions/0030-functions-run-where-they-are.md.)
   *
   * @throws E_HANDLER_THREW with the handler's own error as cause, E_HANDLER_PROMISE, E_HANDLER_FILE,
   *   E_HANDLER_HANGS when its thread had to be ended, E_ALREADY_RUNNING, E_CLOSED.
   */
  async run(handler: Handler | HandlerFile, options: RunOptions = {}): Promise<void> {
    await this.hold(options.signal, () =>
      typeof handler === "object" && handler !== null && "file" in handler
        ? runFile(this.inner, handler, options)
        : runHere(this.inner, handler, options),
    );
  }

  /** Runs a handler in Rust, one thread a queue, until stop(), close() or the signal. */
  async runNative(handler: NativeHandler, options: NativeRunPortOptions = {}): Promise<void> {
    const { to, cores, signal } = options;
    if (handler === "forward" && to === undefined) {
      const why = "forward needs a port to send to";
      throw new BifurcateError("E_BAD_OPTION", { what: `run ${handler} on ${this.name}`, why });
    }
    await this.hold(signal, () => {
      const what: NativeRunOptions = { do: handler, ...(cores === undefined ? {} : { cores: [...cores] }) };
      const done = this.inner.native.runNative(what, to?.inner.native);
      return { done, terminate: () => Promise.resolve() };
    });
  }

  /** The batches of all queues, one after another, on the calling thread. Each is valid until the next is asked for. */
  [Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    this.checkIdle();
    return batches(this.inner, (running) => {
      this.running = running;
    });
  }

  /** Ends what runs on the port; the port stays open. Resolves when every handler has come back. */
  async stop(options: CloseOptions = {}): Promise<void> {
    const { running } = this;
    if (running === undefined) return;
    const left = await this.inner.native.stop(options.graceMs ?? GRACE_MS);
    await running.terminate(left);
    await running.done.catch(() => undefined);
  }

  /**
   * Ends what runs, gives the flow back to the kernel, closes the device, takes the pool's memory away (a view of
   * it that somebody kept reads zeros) and restores the card's settings. A second call waits for the first.
   */
  close(options: CloseOptions = {}): Promise<void> {
    this.closing ??= this.shut(options.graceMs ?? GRACE_MS);
    return this.closing;
  }

  /** `await using port = ...` closes it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal Ends a run with an error from outside, such as the interface's end; the next one, when none runs. */
  fail(error: Error): void {
    if (this.failure === undefined) this.failed ??= error;
    else this.failure(error);
  }

  private async shut(graceMs: number): Promise<void> {
    try {
      await this.backing.close(() => this.shutDevice(graceMs));
    } finally {
      openPorts.delete(this);
    }
  }

  private async shutDevice(graceMs: number): Promise<void> {
    const { native } = this.inner;
    const { running } = this;
    const hanging = await native.stop(graceMs);
    if (hanging.length > 0) await running?.terminate(hanging);
    this.last = this.count();
    const left = await native.close(graceMs);
    if (left.length === 0) return;
    const why = `queues ${left.join(", ")} are still in a handler, so the pool stays mapped`;
    throw new BifurcateError("E_HANDLER_HANGS", { what: `close ${this.name}`, why });
  }

  private count(): PortStats {
    const { total, queues } = this.inner.native.stats();
    return { ...total, queues };
  }

  /** Notes what runs, for as long as it does. */
  private async hold(
    signal: AbortSignal | undefined,
    start: () => Running | Promise<Running>,
  ): Promise<void> {
    this.checkIdle();
    if (signal?.aborted) return;
    // Taken before the start, which may take a moment, so that a second run is refused from now on.
    let ended!: (error?: Error) => void;
    const outside = new Promise<void>((resolve, reject) => {
      ended = (error) => (error === undefined ? resolve() : reject(error));
    });
    outside.catch(() => undefined);
    const placeholder: Running = { done: outside, terminate: () => Promise.resolve() };
    this.running = placeholder;
    const abort = (): void => void this.stop();
    let failed: Error | undefined;
    try {
      const running = await start();
      this.running = running;
      this.failure = (error) => {
        failed ??= error;
        void this.stop();
      };
      signal?.addEventListener("abort", abort, { once: true });
      failed ??= this.failed;
      if (failed !== undefined || this.closing !== undefined || signal?.aborted)
        void this.inner.native.stop(0);
      await running.done;
    } catch (thrown) {
      // What failed from outside (not confirmed, the interface gone) also makes a start fail in its midst.
      throw this.failed ?? thrown;
    } finally {
      signal?.removeEventListener("abort", abort);
      this.running = undefined;
      this.failure = undefined;
      ended();
    }
    if (failed !== undefined) throw failed;
  }

  private checkIdle(): void {
    const what = `run a handler on ${this.name}`;
    if (this.closing !== undefined) throw new BifurcateError("E_CLOSED", { what, why: "the port is closed" });
    if (this.failed !== undefined) throw this.failed;
    if (this.running !== undefined) {
      throw new BifurcateError("E_ALREADY_RUNNING", { what, why: "a handler already runs on it" });
    }
  }
}
