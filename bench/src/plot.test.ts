// The drawing of a bench: a bar for every row, as long as its ratio, red where what was asked is not reached.
import { expect, it } from "vitest";
import { svg } from "./plot.js";
import { compare, type Result } from "./rows.js";

const sample = (value: number) => ({ value, command: "run it" });
const row = (
  name: string,
  ours: readonly number[],
  target: number | null = null,
  unit = "packets/s",
): Result =>
  compare(
    { name: "n", row: name, unit, better: "more", target },
    ours.map(sample),
    ours.map(() => sample(10)),
  );

const bars = (text: string) =>
  [...text.matchAll(/<rect x="\d+" y="\d+" width="([\d.]+)" height="14" fill="(#\w+)"\/>/g)].map((match) => ({
    width: Number(match[1]),
    fill: match[2],
  }));

it("draws every row as long as its ratio, in the order of the rows", () => {
  const text = svg("ours : theirs", [row("first", [10]), row("second", [25]), row("third", [5])]);
  const [first, second, third] = bars(text).map((bar) => bar.width);
  expect(second! / first!).toBeCloseTo(2.5, 2);
  expect(third! / first!).toBeCloseTo(0.5, 2);
  const said = [...text.matchAll(/>([^<]+)<\/text>/g)].map((match) => match[1]);
  expect(said).toEqual([
    "ours : theirs (median ratio, larger is better for us)",
    "1",
    ...["first, packets/s", "1.00", "second, packets/s", "2.50", "third, packets/s", "0.50"],
  ]);
});

it("stands the mark of 1 where a row as good as its peer ends", () => {
  const text = svg("t", [row("even", [10])]);
  const left = Number(/<rect x="(\d+)" y/.exec(text)![1]);
  const one = Number(/<line x1="([\d.]+)"/.exec(text)![1]);
  expect(one - left).toBeCloseTo(bars(text)[0]!.width, 0);
});

it("shows the spread of single pairs", () => {
  const text = svg("t", [row("wide", [5, 10, 30])]);
  const [from, to] = /<line x1="([\d.]+)" x2="([\d.]+)" y1="51"/.exec(text)!.slice(1).map(Number);
  const left = Number(/<rect x="(\d+)" y/.exec(text)![1]);
  expect((to! - left) / (from! - left)).toBeCloseTo(6, 1);
});

it("says by colour whether what was asked is reached", () => {
  const [none, good, bad] = bars(svg("t", [row("a", [1]), row("b", [20], 1), row("c", [20], 3)]));
  expect(none!.fill).toBe(good!.fill);
  expect(bad!.fill).not.toBe(good!.fill);
});

it("is well-formed whatever a row is called, and leaves room for a long name", () => {
  const name = "a < b & c, ".repeat(8);
  const text = svg("ours & theirs", [row(name, [10])]);
  expect(text).toContain("ours &amp; theirs");
  expect(text).toContain("a &lt; b &amp; c");
  expect(text.replaceAll(/&(amp|lt|gt);/g, "")).not.toContain("&");
  expect(Number(/<rect x="(\d+)" y/.exec(text)![1])).toBeGreaterThan(name.length * 6);
});
