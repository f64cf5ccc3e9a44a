// Leases that another broker has left: whether each goes on under this one, or why not; and for how long without its client.
import { wrapError } from "../errors.js";
import { bootId, isAlive } from "../facts/processes.js";
import { readRecords, removeRecord, removeUnfinished, type LeaseRecord } from "../lease/record.js";
import { next, steers } from "../lease/state.js";
import type { Audit } from "./audit.js";
import { Card } from "./card.js";
import type { Ending } from "./ending.js";
import type { Inventory } from "./inventory.js";
import type { Live } from "./live.js";
import type { BrokerNetns } from "./machine.js";
import { foreignSockets, pinFolder, removePins } from "./port.js";
import { isWhole } from "./whole-card.js";

/** How long between two looks whether anybody has a lease whose client has not been heard of, ms: at first, and at most. */
const LOOK_LEAST_MS = 500;
const LOOK_MOST_MS = 60_000;

/** How long until a lease is tried again that could not be adopted, ms. */
export const AGAIN_MS = 10_000;

/** What is done with a lease that is adopted. */
export interface Means {
  readonly ending: Ending;
  /** Watches its client from now on. @throws when that has ended. */
  readonly watch: (live: Live) => void;
  /** Ends one that went on, since nobody has it. */
  readonly lose: (id: string, why: string) => void;
}

/**
 * Takes over the leases that another broker has left: those whose client lives go on, all others are taken away.
 * Never throws for one lease: all are tried.
 */
export function adoptAll(has: Inventory, means: Means): { readonly adopted: number; readonly ended: number } {
  removeUnfinished(has.places.state);
  const { records, errors } = readRecords(has.places.state);
  for (const error of errors) {
    has.audit.write({ event: "adopt", outcome: error.code, why: error.message });
  }
  // All of them first: a program that is made anew must know every lease.
  const found = records.filter((record) => register(has, record));
  for (const live of has.leases.values()) {
    const { card, slot, request, own } = live.record;
    if (live.steered || has.cards.get(card.ifindex)?.has(slot) !== false) continue;
    // The program may know it still: it was ending when the broker was killed.
    has.cards.get(card.ifindex)!.note(slot, request.flows, own?.queues ?? null);
    live.steered = true;
  }
  let [adopted, ended] = [0, records.length - found.length];
  for (const record of found) {
    const live = has.leases.get(record.id)!;
    const stands = (): boolean => has.leases.get(record.id) === live;
    const outcome = adoptOrRetry(live, has.audit, () => adoptOne(has, means, live.record), stands);
    if (outcome === "done") adopted++;
    else if (outcome === "ended") ended++;
  }
  return { adopted, ended };
}

/** Notes a lease that another broker has left; false where nothing is left of it but its record. */
function register(has: Inventory, record: LeaseRecord): boolean {
  if (record.bootId !== bootId()) {
    removePins(pinFolder(has.places.bpffs, record.id));
    removeRecord(has.places.state, record.id);
    return false;
  }
  // Of another namespace: another broker's.
  if (record.netnsInode !== has.netns.inode) return false;
  if (isWhole(record)) {
    has.leases.set(record.id, { record, process: null, timer: null, steered: false });
    return true;
  }
  const { ifindex, name } = record.card;
  let card = has.cards.get(ifindex);
  if (card === undefined) {
    card = new Card(has.kernel, has.netns, ifindex, name, record.granted?.xdp ?? "driver", has.places.bpffs);
    card.adopt();
    has.cards.set(ifindex, card);
  }
  // One that has ended may have left its slot to another.
  const steered = record.state === "reserved" || steers(record.state);
  if (steered) {
    const present = foreignSockets(has.kernel, record, pinFolder(has.places.bpffs, record.id));
    card.note(record.slot, record.request.flows, record.own?.queues ?? null, present);
  }
  has.leases.set(record.id, { record, process: null, timer: null, steered });
  return true;
}

/** null when it goes on, else why not. */
function adoptOne(has: Inventory, { ending, watch, lose }: Means, record: LeaseRecord): string | null {
  const live = has.leases.get(record.id)!;
  const attached = has.cards.get(record.card.ifindex)?.attached === true;
  const held = (): boolean | null => ending.isHeld(live);
  let why = whyNot(record, { netns: has.netns, attached, held });
  try {
    // One that lives, and does not let go of what is to be free, may have to be ended.
    if (why === null || isAlive(record.client)) watch(live);
  } catch (thrown) {
    if (why === null && isAlive(record.client)) throw thrown;
    why ??= `process ${record.client.pid} has ended`;
  }
  if (why === null) {
    watchUnheard(live, held, (lost) => lose(record.id, lost));
    return null;
  }
  // What is held still is waited for.
  const event = record.state === "reserved" ? "fail" : isAlive(record.client) ? "loss" : "death";
  if (next(record.state, event) !== null) has.journal.end(live, event);
  const failed = ending.tryTakeAway(live, event);
  if (failed !== null) throw failed;
  return why;
}

/**
 * Adopts a lease, and tells it. One of which the kernel could not tell enough is tried again: what is not watched would be
 * kept for ever.
 * @param adopt Gives null when it goes on, else why not; throws when that cannot be told.
 * @param stands Whether the lease is there still.
 * @returns What came of it; null: that could not be told.
 */
export function adoptOrRetry(
  live: Live,
  audit: Audit,
  adopt: () => string | null,
  stands: () => boolean,
): "done" | "ended" | null {
  const { id, client, card } = live.record;
  const told = { event: "adopt", uid: client.uid, pid: client.pid, lease: id, device: card.name } as const;
  try {
    const why = adopt();
    const outcome = why === null ? "done" : "ended";
    audit.write({ ...told, outcome, why: why ?? undefined });
    return outcome;
  } catch (thrown) {
    const { code, message } = wrapError(thrown, `adopt ${id}`);
    audit.write({ ...told, outcome: code, why: message });
    // One with a timer is being ended.
    if (live.timer !== null || !stands()) return null;
    live.timer = setTimeout(() => {
      live.timer = null;
      adoptOrRetry(live, audit, adopt, stands);
    }, AGAIN_MS);
    return null;
  }
}

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
  return nobodyHas(record);
}

function nobodyHas(record: LeaseRecord): string {
  return `nobody has ${isWhole(record) ? "the card" : "its sockets"}`;
}

/**
 * Looks again, ever less often, until nobody has an adopted lease any more. A look may say of a lease that it is held, and
 * one soon afterwards that it is not: the kernel takes a closed socket's pool from its queue in a work item of its own
 * (xp_put_pool, net/xdp/xsk_buff_pool.c), which may come late; a card may not have been looked at yet; and a client
 * that lives may close its lease without a word. Stopped by the lease's timer: when its client is heard of, or it ends.
 * @param lost Told why it ends.
 */
export function watchUnheard(
  live: Live,
  held: () => boolean | null,
  lost: (why: string) => void,
  after = LOOK_LEAST_MS,
): void {
  // An outsider's socket comes and goes as it likes.
  if (live.record.request.mechanism === "foreign") return;
  live.timer = setTimeout(() => {
    if (held() === false) lost(nobodyHas(live.record));
    else watchUnheard(live, held, lost, Math.min(2 * after, LOOK_MOST_MS));
  }, after);
}
