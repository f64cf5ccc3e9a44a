// A queue of an 82576 that nobody polls costs its own frames and no others: Drop_En, as far as an emulation shows it.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bringExample, pciOf } from "../testing/guest-card.js";
import { shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

/** Slots of the rings of the program: one of a ring is never filled. */
const RING = 64;

/** What the program says of one queue that it stopped polling; lists are by queue. */
interface Stopped {
  readonly stopped: 0 | 1;
  readonly drop_en: readonly [boolean, boolean];
  readonly sent: readonly [number, number];
  readonly received: readonly [number, number];
  readonly rqdpc: readonly [number, number];
}

let guest: Guest;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  await bringExample(guest, "bifurcate-datapath", "drop_en");
  // The program may have to be built first.
}, 2 * BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, "rm -f /tmp/drop_en; rm -rf /run/bifurcate/cards");
});

it(
  "a queue that is not polled drops its own frames, and the other one loses nothing",
  async () => {
    const cards = [pciOf(guest, "far0"), pciOf(guest, "nic0")];
    for (const address of cards) await shell(guest, `bifurcate take ${address}`);
    try {
      const said = await shell(guest, `/tmp/drop_en ${cards.join(" ")}`);
      const lines = said.split("\n").filter((line) => line.startsWith("{"));
      const seen = lines.map((line) => JSON.parse(line) as Stopped);
      expect(seen.map(({ stopped }) => stopped)).toEqual([0, 1]);
      for (const { stopped, drop_en, sent, received, rqdpc } of seen) {
        const polled = 1 - stopped;
        expect(drop_en).toEqual([true, true]);
        // Flows are spread over both, and each has far more frames than a ring holds.
        expect(Math.min(...sent)).toBeGreaterThan(4 * RING);
        expect(received[polled]).toBe(sent[polled]);
        // The ring's slots, less what it held back: the card hears of free ones when they are an eighth of the ring.
        expect(received[stopped]).toBeLessThan(RING);
        expect(received[stopped]).toBeGreaterThanOrEqual(RING - RING / 8);
        // QEMU's emulation counts none, real cards each that was dropped.
        expect(rqdpc).toEqual([0, 0]);
      }
    } finally {
      for (const address of cards) await shell(guest, `bifurcate give ${address}`);
    }
  },
  MINUTES,
);
