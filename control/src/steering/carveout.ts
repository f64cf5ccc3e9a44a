// Taking queues out of the RSS indirection table, and what puts them back.

/** How many queues RSS spreads over is told by the table; how it was made decides how it is restored. */
export type TableOrigin = "default" | "explicit";

/**
 * Whether a table is one that a driver makes by itself for `queues` queues: entry i is i mod n
 * (ethtool_rxfh_indir_default(), linux/ethtool.h), or i * n / size (igb's igb_setup_mrqc()).
 */
export function tableOrigin(table: readonly number[], queues: number): TableOrigin {
  const interleaved = table.every((queue, i) => queue === i % queues);
  const blocks = table.every((queue, i) => queue === Math.floor((i * queues) / table.length));
  return interleaved || blocks ? "default" : "explicit";
}

/** The table a core reset gives (`ethtool -X NAME default`): i mod n. */
export function defaultTable(size: number, queues: number): number[] {
  return Array.from({ length: size }, (_, i) => i % queues);
}

/**
 * The table without the given queues: their entries go round the queues that are left. null where none is
 * left. A default table is spread evenly anew; of an explicit one only the taken entries change, so that a
 * user's weights survive.
 */
export function carveOut(
  table: readonly number[],
  queues: number,
  taken: readonly number[],
): readonly number[] | null {
  const gone = new Set(taken);
  if (tableOrigin(table, queues) === "default") {
    const left = Array.from({ length: queues }, (_, i) => i).filter((queue) => !gone.has(queue));
    return left.length === 0 ? null : table.map((_, i) => left[i % left.length] ?? 0);
  }
  const left = [...new Set(table)].filter((queue) => !gone.has(queue)).sort((a, b) => a - b);
  if (left.length === 0) return null;
  let next = 0;
  return table.map((queue) => (gone.has(queue) ? (left[next++ % left.length] ?? 0) : queue));
}

/** What the undo of a carve-out writes: null (the driver's default, see docs/decisions/0021) or the table. */
export function restoreTable(table: readonly number[], queues: number): readonly number[] | null {
  return tableOrigin(table, queues) === "default" ? null : table;
}

/** Up to `count` locations without a rule, the highest first: the low ones are what people number by hand. */
export function freeLocations(capacity: number, used: readonly number[], count: number): number[] {
  const taken = new Set(used);
  const free: number[] = [];
  for (let location = capacity - 1; location >= 0 && free.length < count; location--) {
    if (!taken.has(location)) free.push(location);
  }
  return free;
}
