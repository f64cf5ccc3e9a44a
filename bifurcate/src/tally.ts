// Counters over the life of a port whose device was closed and opened anew in between.

import type { Counters } from "./native.js";
import type { PortStats } from "./port.js";

/** What was counted before the device that is open now, by the card's queues. */
export class Tally {
  private total: Counters | undefined;
  private queues: ReadonlyMap<number, Counters> = new Map();

  /** Keeps all counters as they stood when a device was closed, as `with` gave them. */
  keep({ queues, ...total }: PortStats, numbers: readonly number[]): void {
    this.total = total;
    const kept = new Map(this.queues);
    numbers.forEach((queue, place) => {
      const counters = queues[place];
      if (counters !== undefined) kept.set(queue, counters);
    });
    this.queues = kept;
  }

  /** What a device counted, and what was counted before it; queues that are no more count in the total alone. */
  with({ queues, ...total }: PortStats, numbers: readonly number[]): PortStats {
    return {
      ...sum(total, this.total),
      queues: queues.map((counters, place) => sum(counters, this.queues.get(numbers[place] ?? -1))),
    };
  }
}

function sum(now: Counters, before: Counters | undefined): Counters {
  if (before === undefined) return now;
  const names = Object.keys(now) as (keyof Counters)[];
  return Object.fromEntries(names.map((name) => [name, now[name] + before[name]])) as unknown as Counters;
}
