// What stands in a cell of the comparison: statements, each of which says how it came to be known.

/**
 * "known": true of the mechanism everywhere, by a source. "probed": what this machine and card said just now.
 * "measured": counted just now by traffic that was made for it.
 */
export type Kind = "known" | "probed" | "measured";

/** One statement of a cell. */
export interface Statement {
  readonly kind: Kind;
  readonly says: string;
  /** Where it comes from: a page, a file of the kernel's source, the probe, or the command that measured it. */
  readonly source: string;
}

/** What is known of a mechanism by one criterion, before any machine is looked at. */
export interface Fact {
  readonly says: string;
  readonly source: string;
}

/** A fact and its source, for tables that read well. */
export const fact = (says: string, source: string): Fact => ({ says, source });
