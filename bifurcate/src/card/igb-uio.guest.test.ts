// Cards taken whole by igb_uio, which no kernel brings: its module is built for the guest's kernel from Debian's source.
import { readFileSync } from "node:fs";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { igbUioModule } from "@bifurcate/lab/guest/igb-uio";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { afterAll, beforeAll, describe, it } from "vitest";
import {
  bringUpCards,
  everyCard,
  takeDownCards,
  tryRows,
  withFunction,
  type Wires,
} from "../testing/guest-card.js";
import { shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
const MODULE = "/tmp/igb_uio.ko";

let guest: Guest;
let wires: Wires;

beforeAll(async () => {
  const module = await igbUioModule((text) => console.log(text));
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  const input = readFileSync(module).toString("base64");
  await guest.run(["sh", "-c", `base64 -d > ${MODULE} && insmod ${MODULE}`], { input });
  wires = await bringUpCards(guest);
}, BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, `rmmod igb_uio; rm -f ${MODULE}`);
  await takeDownCards(guest, wires);
});

describe("a card taken whole via igb_uio", () => {
  it(
    "is bound, carries frames both ways, sleeps by interrupts, and is given back as it was",
    async () => {
      await tryRows(guest, everyCard(guest, "igb_uio", wires));
    },
    MINUTES,
  );

  it(
    "may be a virtual function",
    async () => {
      await withFunction(guest, wires.igb, ["igb_uio"], (rows) => tryRows(guest, rows));
    },
    MINUTES,
  );
});
