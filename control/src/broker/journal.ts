// The records of live leases: what is being made counts once it is written down, and what ends, ends all the same.
import { BifurcateError, wrapError } from "../errors.js";
import { writeRecord, type LeaseRecord } from "../lease/record.js";
import { next, type LeaseEvent } from "../lease/state.js";
import type { Audit } from "./audit.js";
import type { Live } from "./live.js";

/** Writes them into a folder. */
export class LeaseJournal {
  constructor(
    private readonly directory: string,
    private readonly audit: Audit,
  ) {}

  /** Writes a change down; it is not so where that fails. @throws E_JOURNAL */
  write(live: Live, change: Partial<LeaseRecord>): void {
    const record = { ...live.record, ...change };
    writeRecord(this.directory, record);
    live.record = record;
  }

  /** Leads a lease to its next state, as `write`. @throws E_JOURNAL */
  advance(live: Live, event: LeaseEvent, change: Partial<LeaseRecord> = {}): void {
    this.write(live, { ...change, state: after(live, event) });
  }

  /**
   * Writes a change of a lease that ends; it is so also where that fails, by a full disk say: what is leased must come
   * back, and the next broker finds out by itself what is left of an older record's lease.
   */
  tryWrite(live: Live, change: Partial<LeaseRecord>): void {
    try {
      this.write(live, change);
    } catch (thrown) {
      live.record = { ...live.record, ...change };
      const { code, why } = wrapError(thrown, `write down ${live.record.id}`);
      // Said once, however often it is tried.
      if (why === live.unwritten) return;
      live.unwritten = why;
      const { id, card } = live.record;
      this.audit.write({ event: "undo", outcome: code, lease: id, device: card.name, why });
    }
  }

  /** Leads a lease that ends to its next state, as `tryWrite`. */
  end(live: Live, event: LeaseEvent): void {
    this.tryWrite(live, { state: after(live, event) });
  }
}

function after({ record }: Live, event: LeaseEvent): LeaseRecord["state"] {
  const state = next(record.state, event);
  if (state !== null) return state;
  throw new BifurcateError("E_INTERNAL", {
    what: `end or make ${record.id}`,
    why: `a lease that is ${record.state} cannot ${event}`,
  });
}
