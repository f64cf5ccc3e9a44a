// What a handler is: a function called with a batch, at once and without waiting for anything.

import { BifurcateError } from "@bifurcate/control/errors";
import type { Batch } from "./batch.js";

/** What a handler is told about where it runs, and the way to end kept frames. */
export interface Context {
  /** The interface's name, or "loopback". */
  readonly port: string;
  /** Which queue of the port this handler serves: from 0 on, in the order of `port.path.queues`. */
  readonly queue: number;
  /** Number of queues: there are as many handlers. */
  readonly queues: number;
  /**
   * Sends a frame that was kept, at the queue's next turn. A key that names no kept frame is counted
   * (`handlerInvalid`).
   * @param key What `batch.keep()` gave.
   * @param length Its length in bytes.
   */
  send(key: number, length: number, port?: number): void;
  /** Gives a frame that was kept to the kernel. */
  pass(key: number, length: number): void;
  /** Drops a frame that was kept: its memory goes back to the pool. */
  release(key: number): void;
}

/**
 * Handles one batch. It decides about each frame before it returns; a frame without a verdict is dropped.
 * When a batch has several queues behind it (a function given to `port.run`), `context.queue` says which.
 */
export type Handler = (batch: Batch, context: Context) => void;

/** A handler file's exports. */
export interface HandlerModule {
  readonly handle: Handler;
  /** Called once in each worker before its first batch; may be asynchronous. */
  readonly start?: (context: Context) => void | Promise<void>;
  /** Called once in each worker after its last batch; may be asynchronous. */
  readonly stop?: (context: Context) => void | Promise<void>;
}

/** The error for a handler that returned a Promise. */
export function returnedPromise(): BifurcateError {
  return new BifurcateError("E_HANDLER_PROMISE", {
    what: "run a handler",
    why: "it returned a Promise, and frames cannot wait for one; the frames of its batch were dropped",
  });
}

/** Refuses an async function before it has been called. */
export function checkHandler(handler: unknown): asserts handler is Handler {
  if (typeof handler !== "function") {
    throw new BifurcateError("E_HANDLER_FILE", {
      what: "run a handler",
      why: `it is ${handler === null ? "null" : typeof handler}, not a function`,
      next: "Give a function (batch, context) => void, or { file } with the path of a handler file.",
    });
  }
  if (handler.constructor.name === "AsyncFunction") {
    throw new BifurcateError("E_HANDLER_PROMISE", {
      what: "run a handler",
      why: "it is an async function, and frames cannot wait for one",
    });
  }
}

/** Wraps what a handler threw; the original error, with its stack, is the cause. */
export function threw(thrown: unknown): BifurcateError {
  const why = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return new BifurcateError("E_HANDLER_THREW", {
    what: "run a handler",
    why: `it threw ${why}; the frames of its batch were dropped`,
    cause: thrown,
  });
}

/** The error for an `onError` that threw: it ends the run, as nobody else would hear of it. */
export function onErrorThrew(thrown: unknown): BifurcateError {
  const why = `onError threw ${thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown)}`;
  return new BifurcateError("E_HANDLER_THREW", {
    what: "tell a handler's error",
    why,
    next: "Correct onError; the cause has its stack.",
    cause: thrown,
  });
}

/** The error for a handler that has kept what the pool had. */
export function leaked(kept: number): BifurcateError {
  return new BifurcateError("E_HANDLER_LEAK", {
    what: "run a handler",
    why: `the pool has no free frame to receive into, and the handler keeps ${kept} that it never gave back`,
    data: { kept },
  });
}
