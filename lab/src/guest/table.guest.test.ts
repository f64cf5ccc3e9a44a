// The table of drivers and modes in docs/lab.md against what a guest says now.
import { readFileSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import type { Guest } from "./guest.js";
import { BOOT_LIMIT, sharedGuest } from "./shared.js";
import { rowsOnPage, TABLE_PAGE, tableRows } from "./table.js";

let guest: Guest;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
}, BOOT_LIMIT);

it("the table in docs/lab.md is what the guest says (npm run lab:table)", async () => {
  const { titles, rows } = await tableRows(guest);
  const page = readFileSync(TABLE_PAGE, "utf8");
  expect(rowsOnPage(page, "kernel")).toEqual([titles]);
  expect(rows).toEqual(rowsOnPage(page, rows[0]![0]!));
});
