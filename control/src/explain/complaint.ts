// What keeps packets from where they should go, in one table: scripts compare with the names, docs/explain.md has each.

/** All complaints. A name never changes its meaning. */
export const COMPLAINTS = [
  // The ten that users of AF_XDP bring most.
  "wrong-queue",
  "rss-spreads",
  "promiscuous-off",
  "copy-mode",
  "fill-ring-empty",
  "need-wakeup-ignored",
  "umem-shared-wrongly",
  "mtu-too-large",
  "foreign-program",
  "rules-left",
  // And the rest.
  "link-down",
  "rule-shadowed",
  "rule-drops",
  "ring-full",
  "handler-stalled",
  "too-long",
  "no-room-in-card",
  "nothing-arrives",
  "no-socket",
  "flow-differs",
  "no-listener",
  "no-route",
] as const;

/** The name of a complaint. */
export type ComplaintName = (typeof COMPLAINTS)[number];

/** One complaint. */
export interface Complaint {
  readonly name: ComplaintName;
  /** What was seen, and what it means. */
  readonly says: string;
  /** The command that mends it, or in words what does; null where there is none. */
  readonly mend: string | null;
}

/** A complaint. */
export function complaint(name: ComplaintName, says: string, mend: string | null): Complaint {
  return { name, says, mend };
}
