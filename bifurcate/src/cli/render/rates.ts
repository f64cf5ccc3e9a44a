// The counters for a person: the live line of rates, and the summary at the end.

import type { Counters } from "../../native.js";
import { byteRate, grouped, renderTable } from "./table.js";

/** Counters that stand for lost frames, and what to call them. */
const LOSSES = [
  ["noFrames", "no frames"],
  ["ringFull", "ring full"],
  ["invalidDescriptor", "invalid descriptor"],
  ["tooLong", "too long"],
  ["handlerInvalid", "refused verdicts"],
] as const satisfies readonly (readonly [keyof Counters, string])[];

/** "no frames 12, ring full 3", or "none". */
function losses(stats: Counters): string {
  const some = LOSSES.filter(([key]) => stats[key] > 0).map(
    ([key, words]) => `${words} ${grouped(stats[key])}`,
  );
  return some.length === 0 ? "none" : some.join(", ");
}

/**
 * The line of rates.
 * @param elapsed Seconds since the split began.
 * @param seconds Seconds between the two readings.
 */
export function rateLine(elapsed: number, seconds: number, before: Counters, now: Counters): string {
  const rate = (key: keyof Counters): number => (now[key] - before[key]) / seconds;
  const parts = [
    `${elapsed.toFixed(0)} s`,
    `received ${grouped(rate("received"))}/s (${byteRate(rate("receivedBytes"))})`,
    `sent ${grouped(rate("sent"))}/s`,
    `dropped ${grouped(rate("dropped"))}/s`,
    `passed ${grouped(rate("passed"))}/s`,
    `lost: ${losses(now)}`,
  ];
  return parts.join("  ");
}

/** What was done from the beginning to the end: a row for each queue or port, and one for all where there are several. */
export function summary(
  seconds: number,
  total: Counters,
  parts: readonly (readonly [name: string, stats: Counters])[],
): string {
  const row = (name: string, stats: Counters): string[] => [
    name,
    ...[stats.received, stats.receivedBytes, stats.sent, stats.dropped, stats.passed].map(grouped),
    losses(stats),
  ];
  const several = parts.length > 1;
  const rows = [
    ...(several ? parts.map(([name, stats]) => row(name, stats)) : []),
    row(several ? "all" : (parts[0]?.[0] ?? "all"), total),
  ];
  const columns = [
    { title: `in ${seconds.toFixed(1)} s` },
    ...["received", "bytes", "sent", "dropped", "passed"].map((title) => ({ title, right: true })),
    { title: "lost" },
  ];
  return renderTable(columns, rows);
}
