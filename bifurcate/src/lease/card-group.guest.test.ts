// A card leased whole by its IOMMU group: on Debian's own kernel, which has no iommufd.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, beforeAll, expect, it } from "vitest";
import { NOBODY, OTHER } from "../testing/broker.js";
import { GuestBroker } from "../testing/guest-broker.js";
import { pciOf } from "../testing/guest-card.js";
import { answers, faults, pings, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;
let igb: Wire;
let broker: GuestBroker;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "stock", iommu: "intel" });
  igb = await bringUp(guest, "nic0");
  broker = new GuestBroker(guest);
  await broker.prepare();
}, BOOT_LIMIT);

afterAll(async () => {
  await broker.endAll();
  await broker.give();
  await shell(guest, "rm -rf /run/bifurcate");
  await takeDown(guest, igb);
}, MINUTES);

it(
  "is driven by a user without any right, reaches no memory when it is taken back, and is free when it is closed",
  async () => {
    const card = pciOf(guest, "nic0");
    await broker.offer(card);
    expect(await shell(guest, "ls /dev/iommu /dev/vfio/devices 2>/dev/null || true")).toBe("");
    await broker.start();
    const words = { spec: `pci:${card},via=broker,ringSize=64,frames=512`, stubborn: true };
    const [client, opened] = await broker.client(words);
    expect(opened).toMatchObject({ event: "open", uid: NOBODY });
    expect(await pings(guest, igb)).toBe(3);
    // The kernel says that the group is open, and so that the card is.
    const [, refused] = await broker.client(words, OTHER);
    expect(refused).toMatchObject({ event: "refused", code: "E_CARD_BUSY" });
    await broker.release(opened.id!);
    expect(await broker.event(client, "lost")).toMatchObject({ code: "E_LEASE_REVOKED" });
    expect(await broker.states()).toEqual(["draining"]);
    await shell(guest, "dmesg -c > /dev/null");
    expect(await answers(guest, igb)).toBe(false);
    expect(await faults(guest, igb)).toMatch(/DMAR: \[DMA (Read|Write)/);
    client.kill("SIGTERM");
    await broker.event(client, "end");
    expect(await broker.free()).toBe(true);
  },
  MINUTES,
);
