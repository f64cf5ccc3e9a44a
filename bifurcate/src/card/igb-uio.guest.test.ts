// Cards taken whole by igb_uio, which no kernel brings: its module is built for the guest's kernel from Debian's source.
import { readFileSync } from "node:fs";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { igbUioModule } from "@bifurcate/lab/guest/igb-uio";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, beforeAll, describe, it } from "vitest";
import { everyCard, tryRows, withFunction } from "../testing/guest-card.js";
import { shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
const MODULE = "/tmp/igb_uio.ko";

let guest: Guest;
let igb: Wire;
let e1000e: Wire;
let virtio: Wire;

beforeAll(async () => {
  const module = await igbUioModule((text) => console.log(text));
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  const input = readFileSync(module).toString("base64");
  await guest.run(["sh", "-c", `base64 -d > ${MODULE} && insmod ${MODULE}`], { input });
  igb = await bringUp(guest, "nic0", 1400);
  e1000e = await bringUp(guest, "nic1", 1400);
  virtio = await bringUp(guest, "nic2", 1400);
  await shell(guest, "echo 16 > /proc/sys/vm/nr_hugepages");
}, BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, "echo 0 > /proc/sys/vm/nr_hugepages; rm -rf /run/bifurcate/cards");
  await shell(guest, `rmmod igb_uio; rm -f ${MODULE}`);
  for (const wire of [igb, e1000e, virtio]) {
    await takeDown(guest, wire);
    await shell(guest, `ip link set dev ${wire.nic.name} mtu 1500`);
  }
});

describe("a card taken whole via igb_uio", () => {
  it(
    "is bound, carries frames both ways, sleeps by interrupts, and is given back as it was",
    async () => {
      await tryRows(guest, everyCard(guest, "igb_uio", { igb, e1000e, virtio }));
    },
    MINUTES,
  );

  it(
    "may be a virtual function",
    async () => {
      await withFunction(guest, igb, ["igb_uio"], (rows) => tryRows(guest, rows));
    },
    MINUTES,
  );
});
