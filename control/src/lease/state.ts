// The state machine of a lease: which states there are, and what leads from one to the next.

/**
 * - reserved: written to the journal, being made; nobody has a descriptor of it
 * - granted: the client has it
 * - revoked: it is over, its flow, where it had one, goes to the kernel; what it was made of is being taken away
 * - draining: a copy of a socket is still open somewhere, so its queue is not free
 * - free: nothing of it is left
 */
export type LeaseState = "free" | "reserved" | "granted" | "revoked" | "draining";

/**
 * - reserve: a request was allowed
 * - grant: everything is made and the descriptors have been sent
 * - fail: something could not be made
 * - return: the client gave it back, or closed its connection
 * - death: the client's process ended
 * - release: somebody else took it back
 * - loss: the card or the port went away
 * - held: a socket of it is still open in some process
 * - gone: no socket of it is open any more, or its port was deleted, which unbinds them
 */
export type LeaseEvent =
  "reserve" | "grant" | "fail" | "return" | "death" | "release" | "loss" | "held" | "gone";

const TABLE: Readonly<Record<LeaseState, Partial<Record<LeaseEvent, LeaseState>>>> = {
  free: { reserve: "reserved" },
  reserved: { grant: "granted", fail: "revoked", death: "revoked", release: "revoked", loss: "revoked" },
  granted: { return: "revoked", death: "revoked", release: "revoked", loss: "revoked" },
  revoked: { held: "draining", gone: "free" },
  draining: { gone: "free" },
};

/** The state after the event; null where the event cannot happen in that state. */
export function next(state: LeaseState, event: LeaseEvent): LeaseState | null {
  return TABLE[state][event] ?? null;
}

/** Whether the lease's flow goes to its client in that state. */
export function steers(state: LeaseState): boolean {
  return state === "granted";
}

/** Whether the lease's queue or port can be given to somebody else. */
export function isFree(state: LeaseState): boolean {
  return state === "free";
}
