// An open port: runs handlers on its queues, counts, and gives everything back when it is closed.

import { BifurcateError, errnoOf, wrapError } from "@bifurcate/control/errors";
import type { RxMetadata } from "@bifurcate/control/steering/metadata";
import { abortSignal, checkValue, readOptions, whole, word, type Kind, type Kinds } from "./check-options.js";
import type { Batch } from "./batch.js";
import { batches } from "./batches.js";
import { readCard, type PortCard } from "./card/facts.js";
import type { Handler } from "./handler.js";
import type { Counters, NativePort, NativeRunOptions, Obtained } from "./native.js";
import { openPorts } from "./open-ports.js";
import { cores as processors, checkProcessors } from "./processors.js";
import {
  readHandlerFile,
  readRunOptions,
  runFile,
  runHere,
  type HandlerFile,
  type Running,
  type RunOptions,
  type RunPort,
} from "./run.js";
import { Tally } from "./tally.js";

/** How frames travel. */
export interface PortPath {
  readonly backend:
    "af_xdp" | "af_packet" | "vf" | "pci" | "loopback" | "vhost-user" | "virtio-user" | "verbs";
  /** The card's queues that have a socket, in the order of `context.queue`. */
  readonly queues: readonly number[];
  /** Whether the kernel copies each frame, or the card writes into the pool itself. */
  readonly mode: "copy" | "zero-copy" | "memory";
  /** Where the XDP program runs: in the driver, or in the kernel's generic place after it. */
  readonly xdp: "driver" | "generic" | null;
  /** What brings the flow here. */
  readonly steering: "ntuple" | "xdp" | "packet-socket" | "mac" | "lease" | "flow-rules" | "none";
  readonly obtained: Obtained;
  /** What the accessors `hash`, `vlan` and `timestamp` of a frame give; "not available" where they are undefined. */
  readonly metadata: RxMetadata;
  /** Every step down from the best way, and why. */
  readonly notes: readonly string[];
}

/** Who is at the other end of a vhost-user socket. */
export interface PortConnection {
  /** Somebody is there. Frames that are sent while nobody is are counted as `ringFull`. */
  readonly connected: boolean;
  /** Connections so far. */
  readonly connections: number;
  /** The virtio features agreed on with whom is there, or was there last, e.g. "VIRTIO_F_RING_PACKED". */
  readonly features: readonly string[];
  /** Why the last connection ended; null when the other end closed it. */
  readonly error: string | null;
  /** There will be no other connection: the port is to be opened anew. */
  readonly over: boolean;
}

/** Counters since the port was opened; `queues` in the order of `path.queues`. */
export interface PortStats extends Counters {
  readonly queues: readonly Counters[];
}

/** Handlers in Rust, by name. */
export const NATIVE_HANDLERS = ["drop", "count", "reflect", "forward"] as const;
export type NativeHandler = (typeof NATIVE_HANDLERS)[number];

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
  /** Looks at the device now, and fails the port where it is gone. */
  look?(): void;
  /** Gives the flow back, calls `shut`, which ends what runs and closes the device, and restores the card. */
  close(shut: () => Promise<void>): Promise<void>;
}

const GRACE_MS = 2_000;
/** What a timer of JavaScript takes. */
const GRACE_MS_MAX = 2 ** 31 - 1;

const isPort: Kind = { allowed: "a Port", accepts: (value) => value instanceof Port };
const CLOSE_KINDS: Kinds<CloseOptions> = { graceMs: whole(0, GRACE_MS_MAX) };
const NATIVE_KINDS: Kinds<NativeRunPortOptions> = { to: isPort, cores: processors, signal: abortSignal };

/** The time from the end of one device to the opening of the next. */
class Change {
  over!: () => void;
  readonly done = new Promise<void>((resolve) => (this.over = resolve));
}

/** An open port. */
export class Port {
  private running: Running | undefined;
  /** Resolves when what runs has begun, or has failed to. */
  private starting: Promise<unknown> | undefined;
  /** close() was called; what became of it. */
  private closing: Promise<void> | undefined;
  private closeFailed = false;
  private last: PortStats | undefined;
  /** What the card said at the last close of the device. */
  private lastCard: PortCard | null = null;
  private failure: ((error: Error) => void) | undefined;
  private failed: Error | undefined;
  /** The device is closed. */
  private shutDown = false;
  /** stop() was called on what runs. */
  private stopping = false;
  /** What the last stop() or close() gave a handler to come back, in milliseconds. */
  private grace = GRACE_MS;
  /** Pending while the card is split anew; what runs begins again then. */
  private change: Change | undefined;
  /** What was counted before the card was split anew. */
  private readonly earlier = new Tally();
  private way: PortPath;

  /** @internal `open` and `split` make ports. */
  constructor(
    private inner: RunPort,
    private readonly backing: Backing,
  ) {
    this.way = backing.path;
    openPorts.add(this);
  }

  /** How frames travel, and what was stepped down from. Another one after the card was split anew. */
  get path(): PortPath {
    return this.way;
  }

  /** The interface's name, "loopback", or device and path of a socket, e.g. "vhost-user:/run/vm0.sock". */
  get name(): string {
    return this.inner.name;
  }

  /** @internal By which another port's run sends out of this one. */
  get nativeId(): number {
    return this.inner.native.id;
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

  /** Who is at the other end; null for a port that is over no vhost-user socket. */
  get connection(): PortConnection | null {
    const now = this.inner.native.connection;
    return now == null ? null : { ...now, error: now.error ?? null };
  }

  /**
   * What the card says of itself now, where a driver of our own has it; null for every other port. After close(), as it
   * was then.
   */
  get card(): PortCard | null {
    return readCard(this.inner.native) ?? this.lastCard;
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
    const what = `run a handler on ${this.name}`;
    const checked = readRunOptions(what, options);
    const file = readHandlerFile(what, handler);
    const outputs = (checked.outputs ?? []).filter((output) => output instanceof Port);
    await this.hold(
      checked.signal,
      () =>
        file === null
          ? runHere(this.inner, handler as Handler, checked)
          : runFile(this.inner, file, checked, (running) => this.begun(running)),
      outputs,
    );
  }

  /**
   * Runs a handler in Rust, one thread a queue, until stop(), close() or the signal.
   * @throws E_BAD_OPTION, E_ALREADY_RUNNING also when another one has the queue of `to`, E_CLOSED also of `to`.
   */
  async runNative(handler: NativeHandler, options: NativeRunPortOptions = {}): Promise<void> {
    checkValue(`run a handler on ${this.name}`, "the handler", handler, word(NATIVE_HANDLERS));
    const what = `run ${handler} on ${this.name}`;
    const { to, cores, signal } = readOptions(what, options, NATIVE_KINDS);
    if ((handler === "forward") !== (to !== undefined)) {
      const why = to === undefined ? "forward needs a port to send to" : "only forward sends to a port";
      const next = to === undefined ? "Give the port as `to`." : "Leave `to` out, or run forward.";
      throw new BifurcateError("E_BAD_OPTION", { what, why, next, data: { option: "to" } });
    }
    checkProcessors(what, "cores", cores);
    const begin = (): Running => {
      if (to?.closed === true) {
        throw new BifurcateError("E_CLOSED", { what, why: `the port to send to, ${to.name}, is closed` });
      }
      const asked: NativeRunOptions = { do: handler, ...(cores === undefined ? {} : { cores: [...cores] }) };
      const run = async (): Promise<void> => {
        try {
          await this.inner.native.runNative(asked, to?.inner.native);
        } catch (thrown) {
          throw wrapError(thrown, what, errnoOf(thrown) === "EBUSY" ? "E_ALREADY_RUNNING" : "E_SYSTEM");
        }
      };
      return { done: run(), terminate: () => Promise.resolve() };
    };
    // A port that is forwarded to may be opened anew, as an output may.
    await this.hold(signal, begin, to === undefined ? [] : [to]);
  }

  /** The batches of all queues, one after another, on the calling thread. Each is valid until the next is asked for. */
  [Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    this.checkIdle();
    return this.allBatches();
  }

  /**
   * Ends what runs on the port; the port stays open. Resolves when every handler has come back; a `for await` loop
   * whose body has a batch is not waited for: it ends when it asks for the next one.
   */
  async stop(options: CloseOptions = {}): Promise<void> {
    const { graceMs = GRACE_MS } = readOptions(`stop ${this.name}`, options, CLOSE_KINDS);
    const { running } = this;
    if (running === undefined) return;
    this.stopping = true;
    this.grace = graceMs;
    // The loop ends when it asks for its next batch; the caller may be its body.
    if (running.isHeld?.() === true) return void (await this.inner.native.stop(0));
    const left = await this.inner.native.stop(graceMs);
    // By now it may be another one: the threads of a handler file that was being bundled.
    await this.running?.terminate(left, graceMs);
    await running.done.catch(() => undefined);
    await this.change?.done;
  }

  /**
   * Ends what runs, gives the flow back to the kernel, closes the device, takes the pool's memory away (a view of
   * it that somebody kept reads zeros) and restores the card's settings. A batch that the body of a `for await` loop
   * has is ended with the verdicts that it has so far. A second call waits for the first, or tries again what failed.
   * Through a broker, one that lives and does not answer is waited for 30 s at most; the lease ends all the same.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    const { graceMs = GRACE_MS } = readOptions(`close ${this.name}`, options, CLOSE_KINDS);
    if (this.closing === undefined || this.closeFailed) {
      this.closeFailed = false;
      this.closing = this.shut(graceMs);
      this.closing.catch(() => (this.closeFailed = true));
    }
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

  /**
   * @internal The device is closed, to be opened anew on a card that has changed: what runs pauses until `resume`.
   * The path is no longer the card's by then, and frames go to the kernel.
   */
  async suspend(graceMs = GRACE_MS): Promise<void> {
    this.change ??= new Change();
    // A handler that is still being loaded would find the device gone.
    await Promise.race([this.starting, new Promise((resolve) => setTimeout(resolve, graceMs).unref())]);
    await this.shutDevice(graceMs);
  }

  /** @internal Goes on with a device opened anew; without one, because that failed, after `fail`. */
  resume(opened?: { readonly native: NativePort; readonly path: PortPath }): void {
    if (opened !== undefined) {
      if (this.last !== undefined) this.earlier.keep(this.last, this.way.queues);
      this.last = undefined;
      this.shutDown = false;
      this.inner = { ...this.inner, native: opened.native };
      this.way = opened.path;
    }
    this.change?.over();
    this.change = undefined;
  }

  private async shut(graceMs: number): Promise<void> {
    try {
      await this.backing.close(() => {
        if (this.running?.isHeld?.() === true) this.running.giveBack?.();
        return this.shutDevice(graceMs);
      });
    } finally {
      openPorts.delete(this);
    }
  }

  private async shutDevice(graceMs: number): Promise<void> {
    const { native } = this.inner;
    this.grace = graceMs;
    // Where splitting the card anew failed, the device is closed already.
    if (this.shutDown) return;
    const hanging = await native.stop(graceMs);
    await this.running?.terminate(hanging, graceMs);
    this.last = this.count();
    this.lastCard = this.card;
    // A thread that was ended gives its queue back when it is torn down, which is not the handler's time.
    const left = await native.close(hanging.length > 0 ? Math.max(graceMs, GRACE_MS) : graceMs);
    if (left.length === 0) {
      this.shutDown = true;
      return;
    }
    const why = `queues ${left.join(", ")} are still in a handler, so the pool stays mapped`;
    throw new BifurcateError("E_HANDLER_HANGS", { what: `close ${this.name}`, why });
  }

  private count(): PortStats {
    const { total, queues } = this.inner.native.stats();
    return this.earlier.with({ ...total, queues }, this.way.queues);
  }

  /** Notes what runs, for as long as it does; begins it again when the card was split anew underneath it. */
  private async hold(
    signal: AbortSignal | undefined,
    start: () => Running | Promise<Running>,
    outputs: readonly Port[] = [],
  ): Promise<void> {
    this.checkIdle();
    if (signal?.aborted) return;
    // Taken before the start, which may take a moment, so that a second run is refused from now on.
    let ended!: () => void;
    const done = new Promise<void>((resolve) => (ended = resolve));
    this.running = { done, terminate: () => Promise.resolve() };
    const abort = (): void => void this.stop();
    let failed: Error | undefined;
    const over = (): boolean =>
      (failed ??= this.failed) !== undefined ||
      this.closing !== undefined ||
      this.stopping ||
      signal?.aborted === true;
    try {
      signal?.addEventListener("abort", abort, { once: true });
      // An output that is opened anew ends the run as it is closed; it is then a port by another number.
      const changing = (): Change | undefined =>
        [this, ...outputs].find((port) => port.change !== undefined)?.change;
      do {
        for (let change = changing(); change !== undefined; change = changing()) await change.done;
        if (over()) break;
        const starting = Promise.resolve(start());
        this.starting = starting.catch(() => undefined);
        const running = await starting;
        this.running = running;
        this.failure = (error) => {
          failed ??= error;
          void this.stop();
        };
        if (over()) void this.inner.native.stop(0);
        await running.done;
        this.lookOnce();
      } while (changing() !== undefined);
    } catch (thrown) {
      // What failed from outside (not confirmed, the interface gone) also makes a start fail in its midst.
      if (this.failed !== undefined) throw this.failed;
      // So does a port that is closed while a handler file is made ready: that is the end which was asked for.
      const closed = thrown instanceof BifurcateError && thrown.code === "E_CLOSED";
      if (!closed || this.closing === undefined) throw wrapError(thrown, `run a handler on ${this.name}`);
    } finally {
      // First: whatever a signal of the caller's makes of it, the port is free again.
      this.idle();
      ended();
      signal?.removeEventListener("abort", abort);
    }
    if (failed !== undefined) throw failed;
  }

  /** Notes the threads of a handler file, which are about to load it. */
  private begun(running: Running): void {
    this.running = running;
    // Who stopped it meanwhile found no threads to end; one that never loads has nobody else to do so.
    const ended = this.stopping || this.closing !== undefined || this.failed !== undefined;
    if (ended) void running.terminate([], this.grace);
  }

  private async *allBatches(): AsyncGenerator<Batch, void, undefined> {
    // Again, as this runs only when the first batch is asked for.
    this.checkIdle();
    let ended!: () => void;
    const done = new Promise<void>((resolve) => (ended = resolve));
    this.running = { done, terminate: () => Promise.resolve() };
    let failed: Error | undefined;
    const noted = (running: Running | undefined): void => {
      if (running !== undefined) this.running = running;
    };
    this.failure = (error) => {
      failed ??= error;
      void this.stop();
    };
    try {
      do {
        await this.change?.done;
        if (failed !== undefined || this.closing !== undefined || this.stopping) break;
        yield* batches(this.inner, noted);
        this.lookOnce();
      } while (this.change !== undefined);
    } finally {
      this.idle();
      ended();
    }
    if (failed !== undefined) throw failed;
  }

  /** After a run: it may have ended since the device is gone, before who looks after that has seen it. */
  private lookOnce(): void {
    // A port that is being closed has let go of its device, which is no failure.
    if (this.closing === undefined) this.backing.look?.();
  }

  private idle(): void {
    this.running = undefined;
    this.starting = undefined;
    this.failure = undefined;
    this.stopping = false;
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
