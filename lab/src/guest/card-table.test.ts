// The table of cards says no more than was seen.
import { expect, it } from "vitest";
import { cardTable, withTable } from "./card-table.js";

const row = { driver: "igb", via: "vfio", bound: "vfio-pci", polled: 3, given: true };

it("says yes only where every frame came back and an interrupt came", () => {
  const cells = (seen: Parameters<typeof cardTable>[0][number]): string[] =>
    cardTable([seen])
      .split("\n")[2]!
      .split("|")
      .slice(3, -1)
      .map((cell) => cell.trim());
  expect(cells({ ...row, slept: { answered: 3, interrupts: 2 } })).toEqual([
    "`vfio-pci`",
    "yes",
    "yes",
    "yes",
  ]);
  expect(cells({ ...row, slept: { answered: 3, interrupts: 0 } })[2]).toBe("no");
  expect(cells({ ...row, slept: { answered: 2, interrupts: 9 } })[2]).toBe("no");
  expect(cells({ ...row, slept: null, polled: 2, bound: null, given: false })).toEqual([
    "no",
    "no",
    "not tried",
    "no",
  ]);
});

it("takes the place of the table before, and nothing else", () => {
  const page = "a\n<!-- cards: begin -->\n\nold\n\n<!-- cards: end -->\nb\n";
  const fresh = withTable(page, "new");
  expect(fresh).toBe("a\n<!-- cards: begin -->\n\nnew\n\n<!-- cards: end -->\nb\n");
  expect(withTable(fresh, "new")).toBe(fresh);
  expect(() => withTable("no table", "new")).toThrow("cards: begin");
});
