// What is known of a mechanism wherever it runs: a sentence and its source for six criteria; the seventh is measured.
import type { Fact } from "../cell.js";
import type { Criterion } from "../criteria.js";

/** What performance rests on, before anything is measured: copies, system calls, who polls. */
export type Known = Readonly<Record<Criterion, Fact>>;
