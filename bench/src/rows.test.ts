// A row's arithmetic: the ratio is turned so that larger is better for us, and the median is taken over pairs.
import { expect, it } from "vitest";
import { compare, interleave, median, medianBounds, reached, toLine, toText } from "./rows.js";

const sample = (value: number) => ({ value, command: "run it" });
const of = { name: "n", row: "r", unit: "u", target: null } as const;

it("takes the median of odd and even counts", () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 3, 2])).toBe(2.5);
});

it("turns the ratio by what is better", () => {
  const more = compare({ ...of, better: "more" }, [sample(30)], [sample(20)]);
  const less = compare({ ...of, better: "less" }, [sample(30)], [sample(20)]);
  expect(more.ratio).toBeCloseTo(1.5);
  expect(less.ratio).toBeCloseTo(2 / 3);
});

it("compares pair by pair, so that a slow minute of the machine weighs on both", () => {
  const result = compare({ ...of, better: "more" }, [10, 40, 90].map(sample), [10, 20, 30].map(sample));
  expect(result.ratio).toBe(2);
  expect(result.spread).toEqual([1, 3]);
});

it("refuses sides of unequal length", () => {
  expect(() => compare({ ...of, better: "more" }, [sample(1)], [])).toThrow(/1 runs of ours and 0/);
});

it("says whether what was asked is reached, which a good ratio alone does not decide", () => {
  const row = (target: number | null, unmet?: string) =>
    compare(
      { ...of, better: "more", target, ...(unmet === undefined ? {} : { unmet }) },
      [sample(3)],
      [sample(2)],
    );
  expect([null, 1, 2].map((target) => reached(row(target)))).toEqual([null, true, false]);
  expect(toText(row(1))).toContain("asked 1: reached");
  const lossy = row(1, "nothing lost");
  expect(reached(lossy)).toBe(false);
  expect(toText(lossy)).toContain("asked 1, and nothing lost: NOT REACHED");
});

it("says between which values the median lies, whatever lies outside", () => {
  const values = Array.from({ length: 40 }, (_, at) => at + 1);
  // 20 -+ 0.98 sqrt(40): the 14th from either end.
  expect(medianBounds(values)).toEqual([14, 27]);
  expect(medianBounds([1000, ...values.slice(1, -1), -1000])).toEqual([14, 27]);
  expect(medianBounds([3, 1, 2])).toEqual([1, 3]);
});

it("alternates which side begins", async () => {
  const order: string[] = [];
  const side = (name: string) => async () => void order.push(name);
  await interleave(3, side("a"), side("b"), () => undefined);
  expect(order).toEqual(["a", "b", "b", "a", "a", "b"]);
});

it("prints exactly the keys that scripts read", () => {
  const line = toLine(compare({ ...of, better: "more" }, [sample(1)], [sample(2)]));
  expect(Object.keys(JSON.parse(line) as object)).toEqual([
    "name",
    "row",
    "ours",
    "peer",
    "ratio",
    "unit",
    "runs",
  ]);
});
