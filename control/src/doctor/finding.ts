// What the doctor can find, in one table: scripts compare with the names, docs/doctor.md explains each.

/**
 * "problem": a split would fail, or does not do what it says. "advice": it works, and could be better or do more.
 */
export type Level = "problem" | "advice";

/** All findings. A name never changes its meaning. */
export const FINDINGS = {
  // The machine.
  "capability-missing": "problem",
  "no-af-xdp": "problem",
  "memlock-too-small": "problem",
  "split-left": "problem",
  "journal-unreadable": "problem",
  "comparison-left": "problem",
  "no-hugepages": "advice",
  "hugepages-used-up": "advice",
  "no-bpffs": "advice",
  "bpf-jit-off": "advice",
  "no-iommu": "advice",
  "no-xsk-diag": "advice",
  // A card.
  unreadable: "problem",
  "not-ethernet": "problem",
  "link-down": "problem",
  "no-carrier": "problem",
  "mtu-too-large": "problem",
  "foreign-program": "problem",
  "rule-left": "problem",
  "umem-shared-wrongly": "problem",
  "too-many-queues": "problem",
  "queues-unequal": "problem",
  "no-xdp-in-driver": "advice",
  "no-xdp-features": "advice",
  "one-queue": "advice",
  "ntuple-off": "advice",
  "lro-on": "advice",
  "carve-out-left": "advice",
  "no-iommu-platform": "advice",
  "fill-before-bind": "advice",
  "link-bounces": "advice",
} as const satisfies Record<string, Level>;

/** The name of a finding. */
export type FindingName = keyof typeof FINDINGS;

/** One finding. */
export interface Finding {
  readonly name: FindingName;
  readonly level: Level;
  /** "machine", or the card's name. */
  readonly subject: string;
  /** What was seen, and what that means. */
  readonly says: string;
  /** The command that mends it, or in words what does, or spares it, where no command can. */
  readonly mend: string;
}

/** A finding; its level stands in the table. */
export function finding(name: FindingName, subject: string, says: string, mend: string): Finding {
  return { name, level: FINDINGS[name], subject, says, mend };
}
