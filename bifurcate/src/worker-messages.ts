// What a port and its workers say to each other.

import { BifurcateError, wrapError, type ErrorCode } from "@bifurcate/control/errors";

/** What a worker is started with. */
export interface WorkerData {
  readonly portId: number;
  /** The queue's place in the port, and the number of queues. */
  readonly place: number;
  readonly places: number;
  /** The interface's name. */
  readonly port: string;
  /** The processor that the thread is bound to, null for any. */
  readonly core: number | null;
  /** URL of the bundled handler. */
  readonly url: string;
  /** Path of the handler file as the user gave it, for messages. */
  readonly file: string;
  /** The ports it may send out of beside its own; null: nor may others send out of this one. */
  readonly outputs: number[] | null;
  /** Report a handler's error and go on. */
  readonly goOn: boolean;
}

/** An error as it crosses threads: structured clone keeps an Error's message and stack, but not its class. */
export interface ErrorMessage {
  readonly code: ErrorCode;
  readonly what: string;
  readonly why: string;
  readonly next: string;
  readonly cause: unknown;
}

/** What a worker says. */
export type FromWorker =
  | { readonly kind: "loading" }
  | { readonly kind: "running" }
  | { readonly kind: "error"; readonly error: ErrorMessage }
  | { readonly kind: "failed"; readonly error: ErrorMessage }
  | { readonly kind: "ended" };

/** Makes an error ready to cross. */
export function describe(thrown: unknown): ErrorMessage {
  const { code, what, why, next, cause } = wrapError(thrown, "run a handler");
  return { code, what, why, next, cause: cloneable(cause) };
}

/** The error on this side. */
export function revive(message: ErrorMessage): BifurcateError {
  const { code, what, why, next, cause } = message;
  return new BifurcateError(code, { what, why, next, cause });
}

function cloneable(cause: unknown): unknown {
  try {
    return structuredClone(cause);
  } catch {
    return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  }
}
