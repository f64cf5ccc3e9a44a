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

it("has one line of what several tests saw, and says yes where all of them did", () => {
  const slept = { answered: 3, interrupts: 2 };
  const cells = (...seen: Parameters<typeof cardTable>[0]): string[] =>
    cardTable(seen)
      .split("\n")
      .slice(2)
      .map((line) =>
        line
          .split("|")
          .slice(3, -1)
          .map((cell) => cell.trim())
          .join(" "),
      );
  expect(cells({ ...row, slept }, { ...row, slept: null })).toEqual(["`vfio-pci` yes yes yes"]);
  expect(cells({ ...row, slept }, { ...row, slept, polled: 2 })).toEqual(["`vfio-pci` no yes yes"]);
  expect(cells({ ...row, slept, given: false, bound: null }, { ...row, slept })).toEqual(["no yes yes no"]);
});

it("has its lines in the same order, whichever test ran first", () => {
  const line = (driver: string, via: string) => ({ ...row, driver, via, slept: null });
  const table = cardTable([
    line("another", "vfio"),
    line("igb", "igb_uio"),
    line("igbvf", "vfio"),
    line("e1000e", "vfio"),
    line("igb", "another"),
    line("igb", "vfio"),
  ]);
  const cells = table
    .split("\n")
    .slice(2)
    .map((text) => text.replace(/[`|]/g, "").trim().split(/\s+/).slice(0, 2).join(" "));
  expect(cells).toEqual([
    "igb vfio",
    "e1000e vfio",
    "igbvf vfio",
    "another vfio",
    "igb igb_uio",
    "igb another",
  ]);
});

it("takes the place of the table before, and nothing else", () => {
  const page = "a\n<!-- cards: begin -->\n\nold\n\n<!-- cards: end -->\nb\n";
  const fresh = withTable(page, "new");
  expect(fresh).toBe("a\n<!-- cards: begin -->\n\nnew\n\n<!-- cards: end -->\nb\n");
  expect(withTable(fresh, "new")).toBe(fresh);
  expect(() => withTable("no table", "new")).toThrow("cards: begin");
});
