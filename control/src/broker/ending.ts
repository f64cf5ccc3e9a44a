// The end of a lease: the kernel gets the flow, what somebody still holds is waited for, and all that was made is taken away.
import { wrapError, type BifurcateError } from "../errors.js";
import { removeRecord } from "../lease/record.js";
import { next, type LeaseEvent } from "../lease/state.js";
import type { Step } from "../steering/plan.js";
import { endHolder, isHeld } from "./held.js";
import { ownersOf, type Inventory } from "./inventory.js";
import type { Live } from "./live.js";
import { pinFolder, removePort } from "./port.js";
import { undoOwn, type CardPlace, type Settled } from "./settings.js";
import { freeMemory, isCardHeld, isWhole, takeMemory } from "./whole-card.js";

/** How long between two looks whether what is drained is free, ms: at first, and at most. */
const DRAIN_LEAST_MS = 20;
const DRAIN_MOST_MS = 500;
/** How long the kernel may take to let go of sockets that are closed, ms, before the lease drains and others are served. */
const LET_GO_MS = 600;

/** Ends leases of a broker. */
export class Ending {
  constructor(private readonly has: Inventory) {}

  /** Ends a lease that nobody has yet, or has any more. Never throws: what fails is written down. */
  finish(live: Live, event: LeaseEvent): void {
    if (next(live.record.state, event) !== null) this.has.journal.end(live, event);
    const failed = this.tryTakeAway(live, event);
    if (failed !== null) this.complain(live, failed.code, failed.why);
  }

  /** As `takeAway`; where it fails it is tried again. @returns Why it failed, or null. */
  tryTakeAway(live: Live, event: LeaseEvent): BifurcateError | null {
    try {
      this.takeAway(live, event);
      return null;
    } catch (thrown) {
      const still = this.has.leases.get(live.record.id) === live;
      if (still) live.timer = setTimeout(() => this.finish(live, event), DRAIN_MOST_MS);
      return wrapError(thrown, `end ${live.record.id}`);
    }
  }

  /** Says what of its end failed: once, however often it is tried. */
  private complain(live: Live, outcome: string, why: string): void {
    if (why === live.told) return;
    live.told = why;
    const { id, card } = live.record;
    this.has.audit.write({ event: "undo", outcome, lease: id, device: card.name, why });
  }

  /** The kernel gets the flow; then everything is taken away, or what somebody still holds is waited for. */
  private takeAway(live: Live, event: LeaseEvent): void {
    this.steerBack(live);
    const { record } = live;
    // A port is deleted, which unbinds its sockets; a queue, or a card, is not free before the last copy is closed.
    const own = ((record.own ?? null) !== null || isWhole(record)) && event !== "fail";
    const draining = next(record.state, "held") === null;
    const waits = own || draining || (event === "death" && record.draining === "wait");
    if (!(waits && this.isHeld(live, LET_GO_MS) !== false) && this.clear(live)) return;
    if (!draining) this.has.journal.end(live, "held");
    this.drain(live, DRAIN_LEAST_MS);
  }

  /** The flow goes to the kernel: the program forgets the lease, and rules of the card do; false where one stays. */
  private steerBack(live: Live): boolean {
    const { record, steered } = live;
    live.steered = false;
    takeMemory(live, this.has.audit);
    if (steered) this.has.cards.get(record.card.ifindex)?.remove(record.slot);
    return this.undo(live, "after");
  }

  /** Looks until nobody holds a descriptor, ever less often. */
  private drain(live: Live, after: number): void {
    live.timer = setTimeout(() => {
      let free = false;
      try {
        const held = this.isHeld(live);
        if (held === true && after >= DRAIN_MOST_MS && live.ended !== true) {
          live.ended = endHolder(live.record, live.process, this.has.audit);
        }
        free = held === false && this.clear(live);
      } catch (thrown) {
        const { code, why } = wrapError(thrown, `end ${live.record.id}`);
        this.complain(live, code, why);
      }
      if (!free && this.has.leases.get(live.record.id) === live) {
        this.drain(live, Math.min(2 * after, DRAIN_MOST_MS));
      }
    }, after);
  }

  /** null: that cannot be told now, or nobody has it, and the kernel has not let go of it within `patienceMs`. */
  isHeld(live: Live, patienceMs = 0): boolean | null {
    const { card, own = null, names } = live.record;
    if (isWhole(live.record)) return isCardHeld(this.has.kernel, live);
    try {
      const name = own === null ? undefined : this.place(card.ifindex)?.name;
      return isHeld(this.has.netns, own, names, name, patienceMs);
    } catch {
      return null; // The kernel had no room for its answer, or we none for a descriptor.
    }
  }

  /** A card by the name that it has now; null: it is gone. */
  private place(ifindex: number): CardPlace | null {
    const link = this.has.netns.links().find((each) => each.index === ifindex);
    return link === undefined ? null : { netns: this.has.netns, name: link.name, ifindex };
  }

  /** Undoes settings of the card that were changed for the lease; false where some of it is to be tried again. */
  private undo(live: Live, when: Step["when"]): boolean {
    const { card, own = null } = live.record;
    const place = this.place(card.ifindex);
    if (own === null || place === null) return true;
    const settled = (of: Live): Settled => ({
      own: () => of.record.own!,
      granted: of.record.state === "granted",
      note: (now) => this.has.journal.tryWrite(of, { own: now }),
    });
    const others = ownersOf(this.has, card.ifindex).filter((each) => each !== live);
    const { left, failed } = undoOwn(place, settled(live), others.map(settled), when);
    const why = [...left, ...failed].join("; ");
    if (why !== "") this.complain(live, failed.length > 0 ? "E_UNDO_INCOMPLETE" : "left", why);
    return failed.length === 0;
  }

  /** Nothing is left of it afterwards: interfaces, names, settings, record. False: the card is not ready for that yet. */
  private clear(live: Live): boolean {
    const { record } = live;
    if (live.timer !== null) clearTimeout(live.timer);
    live.process?.close();
    live.process = null;
    const steeredBack = this.steerBack(live);
    removePort(this.has.netns, record.names, pinFolder(this.has.places.bpffs, record.id));
    if (!steeredBack || !this.undo(live, "before")) return false;
    if (this.has.cards.get(record.card.ifindex)?.size === 0) this.has.cards.delete(record.card.ifindex);
    this.has.leases.delete(record.id);
    removeRecord(this.has.places.state, record.id);
    freeMemory(live, this.has.audit);
    return true;
  }
}
