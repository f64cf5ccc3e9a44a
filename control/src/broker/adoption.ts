// Whether a lease that another broker has left goes on under this one, or why not.
import { isAlive } from "../facts/processes.js";
import type { LeaseRecord } from "../lease/record.js";
import type { BrokerKernel, BrokerNetns } from "./machine.js";
import { isCardHeld, isWhole } from "./whole-card.js";

/** What there is of the lease still. */
export interface Remains {
  readonly kernel: BrokerKernel;
  readonly netns: BrokerNetns;
  /** The card's program is on it. */
  readonly attached: boolean;
}

/** null when it goes on, else why not. */
export function whyNot(record: LeaseRecord, { kernel, netns, attached }: Remains): string | null {
  const { state, names, client, own = null } = record;
  const whole = isWhole(record);
  if (!whole && !attached) return "the card's program is gone";
  if (state !== "granted") return `it was ${state}`;
  // The far end may lie in another namespace; the two come and go together.
  if (!whole && own === null && !netns.links().some((each) => each.name === names.near))
    return "its port is gone";
  if (!isAlive(client)) return `process ${client.pid} has ended`;
  // The broker before was killed before it passed the card; or its client closed it, and did not say so yet.
  return whole && !isCardHeld(kernel, record) ? "nobody has the card" : null;
}
