// Which cards are the two ends of a wire, by who heard whom.

import { describe, expect, it } from "vitest";
import { pairs } from "./spare.js";

const heard = (who: Readonly<Record<string, readonly string[]>>): Map<string, Set<string>> =>
  new Map(Object.entries(who).map(([name, others]) => [name, new Set(others)]));

describe("pairs of cards", () => {
  it("hear each other, and each pair is named once", () => {
    expect(pairs(heard({ a: ["d"], b: ["c"], c: ["b"], d: ["a"], e: [] }))).toEqual([
      ["a", "d"],
      ["b", "c"],
    ]);
  });

  it.each([
    ["one way only", { a: [], b: ["a"] }],
    ["three at a switch", { a: ["b", "c"], b: ["a", "c"], c: ["a", "b"] }],
    ["one that hears itself", { a: ["a"], b: [] }],
    ["one that nobody here is", { a: ["x"], b: [] }],
  ])("%s are none", (_, who) => {
    expect(pairs(heard(who))).toEqual([]);
  });
});
