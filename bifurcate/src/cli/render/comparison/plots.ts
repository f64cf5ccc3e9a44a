// The plots of the comparison's page: bars and ranges in inline SVG, as wide as a phone and no wider than they need.

import { micro, percent, rate } from "@bifurcate/control/compare/compare";
import { escape } from "./escape.js";
import type { Measured } from "./figures.js";

/** Units of the drawing: about the pixels of a phone held upright, so that letters keep their size there. */
const WIDTH = 340;
const ROW = 36;
const BAR = 12;
const LINE = 14;

/** One row of a plot: a bar from `from` to `to`, or several, below each other, and what is written beside. */
interface Row {
  readonly label: string;
  readonly bars: readonly {
    readonly from: number;
    readonly to: number;
    readonly text: string;
    readonly shade: number;
  }[];
}

/** All plots, each with its heading; none where nothing was measured. */
export function plots(measured: readonly Measured[]): string {
  if (measured.length === 0) return "";
  const rows = (bars: (one: Measured["measurement"]) => Row["bars"]): Row[] =>
    measured.map(({ mechanism, measurement }) => ({ label: mechanism, bars: bars(measurement) }));
  const bar = (to: number, text: string, shade = 0, from = 0) => ({ from, to, text, shade });
  return [
    plot(
      "Packets a second, flooded",
      "what the program got (full), of what was sent (pale)",
      rows(({ saturated }) => [
        bar(saturated.offered, "", 2),
        bar(saturated.received, `${rate(saturated.received)} (${percent(saturated.loss)} lost)`),
      ]),
      { over: true },
    ),
    plot(
      "CPU time of the program a packet",
      "nanoseconds, flooded; less is better",
      rows(({ saturated }) => [bar(saturated.cpuPerPacket, `${Math.round(saturated.cpuPerPacket)} ns`)]),
    ),
    plot(
      "One way at a moderate rate",
      "from p50 to p99, each step ten times the one before",
      rows(({ latency }) => [
        bar(latency.p99 ?? 1, `${micro(latency.p50)} to ${micro(latency.p99)}`, 0, latency.p50 ?? 1),
      ]),
      { log: true },
    ),
    plot(
      "The kernel's own round trips, p99",
      "user queue quiet, flooded, stopped (from above); each step ten times the one before",
      measured.flatMap(({ mechanism, measurement: { kernel } }) =>
        "none" in kernel
          ? []
          : [
              {
                label: mechanism,
                bars: [kernel.quiet, kernel.saturated, kernel.stopped].map(({ p99, sent, answered }, n) => {
                  const lost = sent === 0 ? 0 : 1 - answered / sent;
                  const text = `${micro(p99)}${lost > 0 ? `, ${percent(lost)} lost` : ""}`;
                  return bar(p99 ?? 1, text, n === 0 ? 2 : n === 1 ? 0 : 1, 1);
                }),
              },
            ],
      ),
      { log: true },
    ),
  ].join("\n");
}

/** `log`: the scale's steps are tens of microseconds. `over`: the bars of a row lie over each other. */
function plot(
  title: string,
  about: string,
  rows: readonly Row[],
  style: { log?: true; over?: true } = {},
): string {
  if (rows.length === 0) return "";
  const most = Math.max(1, ...rows.flatMap((row) => row.bars.map(({ to }) => to)));
  const decades = Math.max(1, Math.ceil(Math.log10(most)));
  const x = (value: number): number =>
    style.log === true
      ? (Math.max(0, Math.log10(Math.max(1, value))) / decades) * WIDTH
      : (Math.max(0, value) / most) * WIDTH;
  const lanes = style.over === true ? 1 : Math.max(...rows.map((row) => row.bars.length));
  // The figures of several bars are too long to stand beside the label.
  const below = lanes > 1 ? LINE : 0;
  const step = ROW + below + (lanes - 1) * (BAR + 3);
  const height = rows.length * step + (style.log === true ? 16 : 4);
  const grid =
    style.log !== true
      ? ""
      : Array.from({ length: decades + 1 }, (_, n) => {
          const at = ((n / decades) * WIDTH).toFixed(1);
          const anchor = n === 0 ? "start" : n === decades ? "end" : "middle";
          const value = 10 ** n;
          const text =
            value >= 1e6 ? `${value / 1e6} s` : value >= 1000 ? `${value / 1000} ms` : `${value} µs`;
          return (
            `<line class="grid" x1="${at}" x2="${at}" y1="0" y2="${height - 14}"/>` +
            `<text class="axis" x="${at}" y="${height - 2}" text-anchor="${anchor}">${text}</text>`
          );
        }).join("");
  const drawn = rows.map((row, n) => {
    const top = n * step;
    const texts = row.bars.map(({ text }) => text).filter((text) => text !== "");
    const beside = texts.join(" / ");
    const bars = row.bars.map(({ from, to, shade }, lane) => {
      const y = top + 17 + below + (style.over === true ? 0 : lane * (BAR + 3));
      const left = x(from);
      const width = Math.max(2, x(to) - left);
      return `<rect class="s${shade}" x="${left.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" rx="2"/>`;
    });
    return (
      `<text x="0" y="${top + 12}">${escape(row.label)}</text>` +
      `<text class="value" x="${WIDTH}" y="${top + 12 + below}" text-anchor="end">${escape(beside)}</text>${bars.join("")}`
    );
  });
  const said = rows
    .map(
      (row) =>
        `${row.label}: ${row.bars
          .map(({ text }) => text)
          .filter(Boolean)
          .join(", ")}`,
    )
    .join("; ");
  return (
    `<figure><figcaption><strong>${escape(title)}</strong><br>${escape(about)}</figcaption>` +
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escape(`${title}. ${said}`)}">${grid}${drawn.join("")}</svg></figure>`
  );
}
