// What a broker has: its cards and leases, and the kernel and the folders that they are kept in.
import type { Audit } from "./audit.js";
import type { Card } from "./card.js";
import type { LeaseJournal } from "./journal.js";
import type { Live, Places } from "./live.js";
import type { BrokerKernel, BrokerNetns } from "./machine.js";

/** All of it, shared by those who make leases, end and adopt them. */
export interface Inventory {
  readonly kernel: BrokerKernel;
  readonly netns: BrokerNetns;
  readonly places: Places;
  readonly audit: Audit;
  readonly journal: LeaseJournal;
  /** By the interface's number. */
  readonly cards: Map<number, Card>;
  /** By the lease's name. */
  readonly leases: Map<string, Live>;
}

/** Leases that have queues of that card. */
export function ownersOf({ leases }: Inventory, ifindex: number): Live[] {
  return [...leases.values()].filter(
    ({ record: { card, own = null } }) => own !== null && card.ifindex === ifindex,
  );
}
