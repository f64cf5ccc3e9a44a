// A stage on a packet's way: what decides there, and what the next one is left with.
import type { Complaint } from "../complaint.js";
import type { ExplainFacts } from "../facts.js";

/** The stages in the order of a packet's way. */
export const STAGES = ["link", "card filter", "RSS", "XDP", "socket", "lease", "handler", "kernel"] as const;

/** The name of a stage. */
export type StageName = (typeof STAGES)[number];

/** What is known of the packet before a stage. */
export interface Way {
  /** The queues it may arrive on: one where that is decided, several where it is not. */
  readonly queues: readonly number[];
  /** A rule of the card chose the queue. */
  readonly steered: boolean;
  /** Where it goes next. "unsure": into user space on some queues or by a foreign program's will. */
  readonly to: "card" | "user" | "kernel" | "nobody" | "unsure";
}

/** What a stage makes of a packet. */
export interface Stage {
  readonly name: StageName;
  /** What decides, in one sentence; why not asked, where it is not. */
  readonly says: string;
  readonly complaints: readonly Complaint[];
}

/** A stage: from the facts and the way so far to what it says and the way from there. */
export type Decide = (facts: ExplainFacts, way: Way) => { readonly stage: Stage; readonly way: Way };

/** "queue 3", "queues 0, 1 or 2". */
export function queueWords(queues: readonly number[]): string {
  if (queues.length === 1) return `queue ${queues[0]}`;
  if (queues.length > 4 && queues.at(-1)! - queues[0]! === queues.length - 1) {
    return `one of the queues ${queues[0]} to ${queues.at(-1)}`;
  }
  return `queue ${queues.slice(0, -1).join(", ")} or ${queues.at(-1)}`;
}
