// A lease as those who may see it are shown it, and lists of them in messages that a socket takes.
import type { LeaseRecord } from "../lease/record.js";
import { PAGE_BYTES, type ListedLease, type Mechanism } from "../protocol/messages.js";
import { memoryOf } from "./pool.js";

/** What PROTOCOL.md says of a lease in a list. */
export function listed(record: LeaseRecord): ListedLease {
  const { id, state, card, request, client, since } = record;
  return {
    id,
    state,
    device: card.name,
    flows: request.flows,
    mechanism: mechanismOf(record),
    transmit: request.transmit,
    pass: request.pass,
    uid: client.uid,
    pid: client.pid,
    memory: memoryOf(record),
    since,
  };
}

/** What a lease stands on. */
export function mechanismOf({ request, own = null }: Pick<LeaseRecord, "request" | "own">): Mechanism {
  if (request.mechanism === "foreign" || request.mechanism === "vfio") return request.mechanism;
  return own === null ? "port" : "queue";
}

/** A part of a list, in the order in which leases were made. */
export interface Page {
  readonly leases: readonly ListedLease[];
  /** Where the rest begins; left out at the end. */
  readonly next?: string;
}

/**
 * The leases after a place in the list, as many as one message holds, in the words of that version of the protocol.
 * Those that come and go between two pages are in one of them, or in none.
 */
export function page(all: readonly ListedLease[], after: string, version: number): Page {
  const place = ({ since, id }: ListedLease): string => `${since} ${id}`;
  const rest = all
    .filter((each) => place(each) > after)
    .sort((a, b) => (place(a) < place(b) ? -1 : 1))
    .map((each) => inWords(each, version));
  let bytes = 0;
  const end = rest.findIndex((each) => (bytes += Buffer.byteLength(JSON.stringify(each))) >= PAGE_BYTES);
  if (end < 0 || end === rest.length - 1) return { leases: rest };
  return { leases: rest.slice(0, end + 1), next: place(rest[end]!) };
}

/** The version that has the word for a mechanism. */
const SINCE: Readonly<Record<Mechanism, number>> = { port: 1, queue: 1, foreign: 2, vfio: 3 };

/** An older version has no word for a foreign lease, which is a port, nor for a card, which it is told is one. */
function inWords(lease: ListedLease, version: number): ListedLease {
  return version < SINCE[lease.mechanism] ? { ...lease, mechanism: "port" } : lease;
}
