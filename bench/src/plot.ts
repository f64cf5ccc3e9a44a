// A bench's rows as an SVG: one bar a row, how many times the peer, with the spread of the single pairs.
import { writeFileSync } from "node:fs";
import { reached, type Result } from "./rows.js";

const ROW = 22;
/** Of a letter of a label, on average. */
const LETTER = 6.2;
const PLOT = 510;

const escape = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** The drawing. Bars end where ours is as good as the peer at 1; larger is better for us. */
export function svg(title: string, results: readonly Result[]): string {
  const labels = results.map(({ row, unit }) =>
    row.endsWith(" cycles") ? `${row} a packet` : `${row}, ${unit}`,
  );
  const left = 16 + Math.ceil(LETTER * Math.max(0, ...labels.map((label) => label.length)));
  const width = left + PLOT;
  const most = Math.max(1.5, ...results.map((result) => result.spread[1])) * 1.05;
  const x = (ratio: number) => left + (ratio / most) * (PLOT - 20);
  const height = 60 + results.length * ROW;
  const bars = results.map((result, at) => {
    const y = 44 + at * ROW;
    const fill = reached(result) === false ? "#c2410c" : "#2563eb";
    return [
      `<text x="${left - 8}" y="${y + 12}" text-anchor="end">${escape(labels[at]!)}</text>`,
      `<rect x="${left}" y="${y}" width="${(x(result.ratio) - left).toFixed(1)}" height="14" fill="${fill}"/>`,
      `<line x1="${x(result.spread[0]).toFixed(1)}" x2="${x(result.spread[1]).toFixed(1)}" y1="${y + 7}" y2="${y + 7}" stroke="#111" stroke-width="1.5"/>`,
      `<text x="${x(Math.max(result.ratio, result.spread[1])) + 5}" y="${y + 12}">${result.ratio.toFixed(2)}</text>`,
    ].join("");
  });
  const one = x(1).toFixed(1);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width + 40} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="16" y="18" font-size="13">${escape(title)} (median ratio, larger is better for us)</text>`,
    `<line x1="${one}" x2="${one}" y1="30" y2="${height - 10}" stroke="#666" stroke-dasharray="4 3"/>`,
    `<text x="${one}" y="34" text-anchor="middle" fill="#666">1</text>`,
    ...bars,
    "</svg>",
    "",
  ].join("\n");
}

export function plot(file: string, title: string, results: readonly Result[]): void {
  writeFileSync(file, svg(title, results));
}
