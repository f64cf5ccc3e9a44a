// What every bench is: a name, what it measures in one line, and a run that gives rows.
import type { Result } from "../rows.js";

export interface BenchOptions {
  /** Interleaved pairs of runs. */
  readonly runs: number;
  /** Seconds that one side is measured for in one run. */
  readonly seconds: number;
  /** The checkout's folder. */
  readonly root: string;
  /** Where to draw the rows, for a bench that draws. */
  readonly plot?: string | undefined;
  /** Where to write the rows as the table that docs/benchmarks.md has, for a bench that has one. */
  readonly table?: string | undefined;
  /** Only the rows that are to reach something, for a bench that has others. */
  readonly targets?: boolean | undefined;
  /** Only these rows, for a bench whose rows take minutes each. */
  readonly rows?: readonly string[] | undefined;
  /** Says what is going on, to a person. */
  readonly progress: (text: string) => void;
}

/** Options that only some benches have. */
export type OwnOption = "plot" | "table" | "targets" | "row";

export interface Bench {
  readonly name: string;
  /** Those of them that it has; none when left out. */
  readonly takes?: readonly OwnOption[];
  readonly about: string;
  run(options: BenchOptions): Promise<Result[]>;
}
