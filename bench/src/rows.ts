// Interleaved runs of two sides on the same work, and the row that comes of them.

/** What one run of one side gave, in the row's unit, with the command that a reader can repeat. */
export interface Sample {
  readonly value: number;
  readonly command: string;
  /** What ran at the other end, where that is another program. */
  readonly farCommand?: string;
}

/** One line of a bench's result. The ratio is always turned so that larger is better for us. */
export interface Row {
  readonly name: string;
  readonly row: string;
  readonly ours: number;
  readonly peer: number;
  readonly ratio: number;
  readonly unit: string;
  readonly runs: number;
}

/** A row together with what stands beside it on paper: the commands, the spread, and what to know. */
export interface Result extends Row {
  readonly commands: { readonly ours: string; readonly peer: string };
  /** What ran at the other end of each, where that is another program. */
  readonly farCommands?: { readonly ours: string; readonly peer: string };
  /** The smallest and the largest ratio of a single interleaved pair. */
  readonly spread: readonly [number, number];
  /** The ratio asked of this row, or null where none is. */
  readonly target: number | null;
  /** What else was asked of this row and not reached: with it the target is not reached, whatever the ratio. */
  readonly unmet?: string;
  readonly note?: string;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * Between which of the values the true median lies with 95 % confidence, whatever their distribution: the order
 * statistics n/2 -+ 0.98 sqrt(n), from the binomial distribution's normal approximation.
 */
export function medianBounds(values: readonly number[]): readonly [number, number] {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.max(0, Math.floor(sorted.length / 2 - 0.98 * Math.sqrt(sorted.length)));
  return [sorted[rank]!, sorted[sorted.length - 1 - rank]!];
}

export interface Comparison {
  readonly name: string;
  readonly row: string;
  readonly unit: string;
  /** "more" where a larger value is better (packets a second), "less" where a smaller one is (CPU a packet). */
  readonly better: "more" | "less";
  readonly target: number | null;
  readonly unmet?: string;
  readonly note?: string;
}

/** Turns interleaved samples (pair i of both sides ran one after the other) into a row. */
export function compare(of: Comparison, ours: readonly Sample[], peer: readonly Sample[]): Result {
  if (ours.length !== peer.length || ours.length === 0) {
    throw new Error(`${of.name}/${of.row}: ${ours.length} runs of ours and ${peer.length} of the peer's`);
  }
  const ratios = ours.map((sample, at) => {
    const other = peer[at]!.value;
    return of.better === "more" ? sample.value / other : other / sample.value;
  });
  const [far, farOfPeer] = [ours[0]!.farCommand, peer[0]!.farCommand];
  return {
    name: of.name,
    row: of.row,
    ours: median(ours.map((sample) => sample.value)),
    peer: median(peer.map((sample) => sample.value)),
    ratio: median(ratios),
    unit: of.unit,
    runs: ours.length,
    commands: { ours: ours[0]!.command, peer: peer[0]!.command },
    ...(far === undefined || farOfPeer === undefined ? {} : { farCommands: { ours: far, peer: farOfPeer } }),
    spread: [Math.min(...ratios), Math.max(...ratios)],
    target: of.target,
    ...(of.unmet === undefined ? {} : { unmet: of.unmet }),
    ...(of.note === undefined ? {} : { note: of.note }),
  };
}

/** Runs both sides `runs` times, one after the other; every second pair begins with the peer. */
export async function interleave<T>(
  runs: number,
  ours: () => Promise<T>,
  peer: () => Promise<T>,
  progress: (text: string) => void,
): Promise<{ ours: T[]; peer: T[] }> {
  const result: { ours: T[]; peer: T[] } = { ours: [], peer: [] };
  for (let run = 0; run < runs; run += 1) {
    progress(`run ${run + 1} of ${runs}`);
    if (run % 2 === 0) {
      result.ours.push(await ours());
      result.peer.push(await peer());
    } else {
      result.peer.push(await peer());
      result.ours.push(await ours());
    }
  }
  return result;
}

/** Whether the row is what is asked of it; null where nothing is. */
export function reached({ ratio, target, unmet }: Result): boolean | null {
  return target === null ? null : ratio >= target && unmet === undefined;
}

/** The row as `--json` prints it: one line, these keys and no others. */
export function toLine({ name, row, ours, peer, ratio, unit, runs }: Row): string {
  return JSON.stringify({ name, row, ours, peer, ratio, unit, runs });
}

/** A number for a reader: three digits of it. */
export function figure(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} k`;
  return value.toPrecision(3);
}

/** The row for a reader. */
export function toText(result: Result): string {
  const asked = result.unmet === undefined ? `${result.target}` : `${result.target}, and ${result.unmet}`;
  const verdict =
    result.target === null ? "" : `, asked ${asked}: ${reached(result) === true ? "reached" : "NOT REACHED"}`;
  const far = (side: "ours" | "peer") =>
    result.farCommands === undefined ? [] : [`    far end    ${result.farCommands[side]}`];
  return [
    `${result.name} / ${result.row} (${result.unit}, median of ${result.runs} interleaved runs)`,
    `  ours   ${figure(result.ours)}    ${result.commands.ours}`,
    ...far("ours"),
    `  peer   ${figure(result.peer)}    ${result.commands.peer}`,
    ...far("peer"),
    `  ratio  ${result.ratio.toFixed(2)} (${result.spread[0].toFixed(2)} to ${result.spread[1].toFixed(2)}${verdict})`,
    ...(result.note === undefined ? [] : [`  note   ${result.note}`]),
  ].join("\n");
}
