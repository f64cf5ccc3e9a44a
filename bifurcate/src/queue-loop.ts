// Turns one queue for one handler: calls it batch by batch, waits when there is nothing, gives way to the event loop.

import { markAsUntransferable } from "node:worker_threads";
import { BifurcateError, messageOf, wrapError } from "@bifurcate/control/errors";
import { Batch } from "./batch.js";
import { leaked, returnedPromise, threw, type Context, type Handler } from "./handler.js";
import { KeptFrames } from "./kept.js";
import { VERDICT_DROP, VERDICT_PASS, VERDICT_SEND } from "./layout.js";
import type { NativeQueue } from "./native.js";

/** Milliseconds of work after which timers, signals and messages get their turn. */
const SLICE_MS = 4;
/** Turns between two looks at the clock. */
const TURNS_A_LOOK = 64;
/** How long a worker sleeps on the queue itself before it goes back to its event loop, in milliseconds. */
const BLOCK_MS = 1;

/** What step() left behind. */
type Left = "more" | "idle" | "stopped";

/** Where a loop runs and what it does when its handler fails. */
export interface LoopOptions {
  /** The interface's name. */
  readonly port: string;
  /** The queue's place in its port, and the number of queues. */
  readonly place: number;
  readonly places: number;
  /** The thread is the loop's own, so it may block for a moment: cheaper than a round through the event loop. */
  readonly mayBlock: boolean;
  /** Go on after a handler failed: its batch is dropped, the error told. Without it the loop ends with the error. */
  readonly onError?: ((error: Error) => void) | undefined;
}

/**
 * Shows a queue's pool and block to this thread.
 * @throws E_EXTERNAL_BUFFERS where the runtime forbids it; the queue is then given back.
 */
export function batchOf(queue: NativeQueue): { batch: Batch; block: ArrayBuffer } {
  let pool: ArrayBuffer;
  let block: ArrayBuffer;
  try {
    pool = queue.pool();
    block = queue.block();
  } catch (thrown) {
    queue.release();
    const what = "show the frame pool to JavaScript";
    if ((thrown as { code?: unknown }).code !== "E_EXTERNAL_BUFFERS") throw wrapError(thrown, what);
    throw new BifurcateError("E_EXTERNAL_BUFFERS", { what, why: messageOf(thrown), cause: thrown });
  }
  // Another thread could hold a transferred buffer longer than this one's environment lives.
  markAsUntransferable(pool);
  markAsUntransferable(block);
  return { batch: new Batch(pool, block), block };
}

/** One queue, its batch and its handler. */
export class QueueLoop {
  /** What the handler is told. */
  readonly context: Context;
  /** Batches whose handler failed. */
  failures = 0;
  private readonly batch: Batch;
  private readonly kept: KeptFrames;
  private readonly busy: boolean;
  // Asked for once: each asking makes a new function, and the optimiser wants to see the same one.
  private readonly turn: () => number;
  private wake: () => void = () => undefined;

  /**
   * @param queue The queue, taken by this thread. run() gives it back.
   * @param handler What is called with each batch.
   */
  constructor(
    private readonly queue: NativeQueue,
    private readonly handler: Handler,
    private readonly options: LoopOptions,
  ) {
    const { batch, block } = batchOf(queue);
    this.batch = batch;
    this.turn = queue.turn;
    this.busy = queue.busyPoll;
    this.kept = new KeptFrames(block, () => this.wake());
    this.context = {
      port: options.port,
      queue: options.place,
      queues: options.places,
      send: (key, length, port = 0) => this.kept.end(key, VERDICT_SEND, length, port),
      pass: (key, length) => this.kept.end(key, VERDICT_PASS, length, 0),
      release: (key) => this.kept.end(key, VERDICT_DROP, 0, 0),
    };
  }

  /**
   * Runs until the port asks for the queue, then gives it back.
   * @throws what the handler failed with: E_HANDLER_THREW, E_HANDLER_PROMISE or E_HANDLER_LEAK.
   */
  async run(): Promise<void> {
    try {
      for (;;) {
        const left = this.step();
        if (left === "stopped") return;
        if (this.queue.starved()) this.checkKept();
        if (left === "more" || this.kept.pending) await nextRound();
        else if (!this.options.mayBlock || this.queue.wait(BLOCK_MS) === 0) await this.ready();
      }
    } finally {
      this.queue.release();
    }
  }

  /** Turns until there is nothing, the slice is over, or the queue is to stop. */
  private step(): Left {
    const { batch, context, handler, turn, busy } = this;
    const until = performance.now() + SLICE_MS;
    do {
      for (let turns = 0; turns < TURNS_A_LOOK; turns++) {
        const count = turn();
        if (count < 0) return "stopped";
        if (count === 0) {
          if (busy) continue;
          return "idle";
        }
        batch.begin(count);
        let result: unknown;
        try {
          result = handler(batch, context);
        } catch (thrown) {
          this.failed(threw(thrown));
        }
        if (result !== undefined) this.check(result);
      }
    } while (performance.now() < until);
    return "more";
  }

  private check(result: unknown): void {
    if ((typeof result !== "object" && typeof result !== "function") || result === null) return;
    let then: unknown;
    try {
      ({ then } = result as { then?: unknown });
    } catch (thrown) {
      this.failed(threw(thrown));
      return;
    }
    if (typeof then !== "function") return;
    // What the Promise comes to is nobody's business any more, an unhandled rejection least of all.
    Promise.resolve(result).catch(() => undefined);
    this.failed(returnedPromise());
  }

  private checkKept(): void {
    const kept = this.queue.kept();
    if (kept > 0 && !this.kept.pending) this.failed(leaked(kept));
  }

  private failed(error: Error): void {
    this.failures++;
    this.batch.dropAll();
    if (this.options.onError === undefined) throw error;
    this.options.onError(error);
  }

  /** Waits in the event loop for frames, for a request to stop, or for a kept frame to be ended. */
  private ready(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
      if (!this.queue.onReady(resolve)) setImmediate(resolve);
    });
  }
}

function nextRound(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
