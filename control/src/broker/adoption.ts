// Whether a lease that another broker has left goes on under this one, or why not; and for how long without its client.
import { wrapError } from "../errors.js";
import { isAlive } from "../facts/processes.js";
import type { LeaseRecord } from "../lease/record.js";
import type { Audit } from "./audit.js";
import type { Live } from "./live.js";
import type { BrokerNetns } from "./machine.js";
import { isWhole } from "./whole-card.js";

/** How long between two looks whether anybody has a lease whose client has not been heard of, ms: at first, and at most. */
const LOOK_LEAST_MS = 500;
const LOOK_MOST_MS = 60_000;

/** How long until a lease is tried again that could not be adopted, ms. */
export const AGAIN_MS = 10_000;

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
