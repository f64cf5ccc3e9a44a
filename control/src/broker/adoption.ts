// Whether a lease that another broker has left goes on under this one, or why not.
import { isAlive } from "../facts/processes.js";
import type { LeaseRecord } from "../lease/record.js";
import type { BrokerNetns } from "./machine.js";
import { isWhole } from "./whole-card.js";

/** What there is of the lease still. */
export interface Remains {
  readonly netns: BrokerNetns;
  /** The card's program is on it. */
  readonly attached: boolean;
  /** Whether somebody has a copy of its descriptors; null: that cannot be told now. */
  readonly held: () => boolean | null;
}

/** null when it goes on, else why not. */
export function whyNot(record: LeaseRecord, { netns, attached, held }: Remains): string | null {
  const { state, names, client, own = null } = record;
  const whole = isWhole(record);
  if (!whole && !attached) return "the card's program is gone";
  if (state !== "granted") return `it was ${state}`;
  // The far end may lie in another namespace; the two come and go together.
  if (!whole && own === null && !netns.links().some((each) => each.name === names.near))
    return "its port is gone";
  if (!isAlive(client)) return `process ${client.pid} has ended`;
  // An outsider makes its socket itself, whenever it likes.
  if (record.request.mechanism === "foreign" || held() !== false) return null;
  // The broker before was killed before it passed them; or the client closed them while nobody was there to be told.
  return `nobody has ${whole ? "the card" : "its sockets"}`;
}
