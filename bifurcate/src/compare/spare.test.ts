// Which cards are spare, and which are the two ends of a wire, by who heard whom.

import { describe, expect, it } from "vitest";
import type { Card } from "@bifurcate/control/doctor/card";
import { inUse } from "./measure-all.js";
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

describe("a card without an address, route or login", () => {
  const link = { kind: null, master: null };
  const facts = { link, addresses: [], routes: [], sessions: [], otherSplits: [], xdp: null };
  const card = (change: object = {}): Card => ({ facts, above: [], pci: null, ...change }) as unknown as Card;

  it("is spare", () => {
    expect(inUse(card())).toBeNull();
    expect(inUse(card({ pci: { virtualFunctions: { total: 7, now: [] } } }))).toBeNull();
  });

  it.each([
    ["a VLAN stands on it", { above: ["lan.7 stands on eth1"] }, "lan.7 stands on eth1"],
    [
      "it has virtual functions",
      { pci: { virtualFunctions: { total: 7, now: ["0000:01:10.0"] } } },
      "it has virtual functions: 0000:01:10.0",
    ],
    [
      "its bridge is in another namespace",
      { facts: { ...facts, link: { ...link, master: 7 } } },
      "it is part of a bridge or bond",
    ],
  ])("is not where %s", (_, change, why) => {
    expect(inUse(card(change))).toBe(why);
  });
});
