// What the virtio bench's runs say: rows to print, and tables to stand in docs/benchmarks.md.
import { compare, figure, reached, type Comparison, type Result, type Sample } from "../rows.js";

/** One run of one side. */
export interface Run {
  readonly pps: number;
  /** Busy cycles a packet of the side that is compared; null where it counts none. */
  readonly cycles: number | null;
  /** Busy cycles a packet of the far end. */
  readonly far: number | null;
  /** What ran at the near end, and at the far one. */
  readonly command: string;
  readonly farCommand: string;
}

/** One packet there and back at a time, in nanoseconds; how many came back, and how many did not. */
export interface Trip {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly trips: number;
  readonly lost: number;
  readonly command: string;
  readonly farCommand: string;
}

const CYCLES = " cycles";
const FAR_CYCLES = " far cycles";
const TRIP = "round trip ";

/** Packets a second, and the busy cycles a packet of both sides and of their far ends where all of them counted some. */
export function rows(
  row: string,
  target: number | null,
  ours: readonly Run[],
  peer: readonly Run[],
): Result[] {
  const each = (of: Omit<Comparison, "name">, value: (run: Run) => number | null): Result[] => {
    const samples = (runs: readonly Run[]): Sample[] =>
      runs.flatMap((run) => {
        const measured = value(run);
        return measured === null
          ? []
          : [{ value: measured, command: run.command, farCommand: run.farCommand }];
      });
    const [a, b] = [samples(ours), samples(peer)];
    if (a.length < ours.length || b.length < peer.length) return [];
    return [compare({ name: "virtio", ...of }, a, b)];
  };
  const unit = "busy cycles a packet";
  return [
    ...each({ row, unit: "packets/s", better: "more", target }, (run) => run.pps),
    ...each(
      { row: `${row}${CYCLES}`, unit, better: "less", target: target === null ? null : 1 },
      (run) => run.cycles,
    ),
    ...each(
      { row: `${row}${FAR_CYCLES}`, unit: `${unit} of the far end`, better: "less", target: null },
      (run) => run.far,
    ),
  ];
}

/** Round trips, with what was lost on the way as the note of each. */
export function tripRows(ours: readonly Trip[], peer: readonly Trip[]): Result[] {
  const sum = (trips: readonly Trip[], of: "trips" | "lost") =>
    trips.reduce((all, trip) => all + trip[of], 0);
  const lost = (trips: readonly Trip[]) =>
    `${sum(trips, "lost")} of ${sum(trips, "trips") + sum(trips, "lost")}`;
  const note = `lost with ours ${lost(ours)}; with the peer ${lost(peer)}`;
  return (["p50", "p99", "p999"] as const).map((part) => {
    const samples = (trips: readonly Trip[]): Sample[] =>
      trips.map((trip) => ({ value: trip[part], command: trip.command, farCommand: trip.farCommand }));
    const of = {
      name: "virtio",
      row: `${TRIP}${part}`,
      unit: "ns",
      better: "less",
      target: null,
      note,
    } as const;
    return compare(of, samples(ours), samples(peer));
  });
}

/** The rows that are drawn: how far ends fare is in the table. */
export function drawn(results: readonly Result[]): Result[] {
  return results.filter(({ row }) => !row.endsWith(FAR_CYCLES));
}

/** Everything as Markdown, as docs/benchmarks.md has it. */
export function tables(results: readonly Result[]): string {
  const of = new Map(results.map((result) => [result.row, result]));
  const ratio = (result: Result | undefined, mark = "") =>
    result === undefined ? "-" : `${mark}${result.ratio.toFixed(2)}${mark} (${spread(result)})`;
  const rates = results
    .filter(({ unit }) => unit === "packets/s")
    .map((rate) => {
      const [cycles, far] = [of.get(rate.row + CYCLES), of.get(rate.row + FAR_CYCLES)];
      const both = (result: Result | undefined) =>
        result === undefined ? ["-", "-"] : [figure(result.ours), figure(result.peer)];
      return [rate.row, ratio(rate, "**"), asked(rate), ...both(cycles), ratio(cycles), ...both(far)];
    });
  const head = [
    "row",
    "packets a second: ratio (spread of single pairs)",
    "asked",
    ...["busy cycles a packet: ours", "peer", "ratio (spread)"],
    ...["far end's cycles, with ours", "with the peer"],
  ];
  const trips = results
    .filter(({ row }) => row.startsWith(TRIP))
    .map((trip) => [
      trip.row.slice(TRIP.length),
      `${figure(trip.ours)} ns`,
      `${figure(trip.peer)} ns`,
      ratio(trip),
    ]);
  const notes = results.find(({ row }) => row.startsWith(TRIP))?.note;
  return [
    table([head, ...rates]),
    ...(trips.length === 0 ? [] : [table([["round trip", "ours", "peer", "ratio (spread)"], ...trips])]),
    ...(notes === undefined ? [] : [`Round trips ${notes}.\n`]),
  ].join("\n");
}

function spread({ spread: [least, most] }: Result): string {
  return `${least.toFixed(2)} to ${most.toFixed(2)}`;
}

function asked(result: Result): string {
  if (result.target === null) return "-";
  return `${result.target}: ${reached(result) === true ? "reached" : "not reached"}`;
}

/** A table whose columns are as wide as what stands in them, as prettier writes it. */
function table(lines: readonly (readonly string[])[]): string {
  const widths = lines[0]!.map((_, at) => Math.max(3, ...lines.map((line) => line[at]!.length)));
  const row = (cells: readonly string[]) =>
    `| ${cells.map((cell, at) => cell.padEnd(widths[at]!)).join(" | ")} |`;
  const rule = widths.map((width) => "-".repeat(width));
  return [row(lines[0]!), row(rule), ...lines.slice(1).map(row), ""].join("\n");
}
