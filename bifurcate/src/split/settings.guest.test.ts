// Settings of a real driver, changed and put back: igb's queues, RSS table and VLAN stripping, whatever ends the owner.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { own, settings, shell, undone } from "../testing/guest-split.js";

const MINUTES = 600_000;
let guest: Guest;
let wire: Wire;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  wire = await bringUp(guest, "nic0");
  await shell(guest, "ethtool -L nic0 combined 4");
}, BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, "ethtool -L nic0 combined 2");
  await takeDown(guest, wire);
});

/** What a split on an own queue would do on a card with ntuple rules: one queue more, kept out of the RSS table. */
const steps = [
  {
    when: "before",
    apply: { kind: "channels", channels: { rx: 0, tx: 0, combined: 5, other: 1 } },
    undo: { kind: "channels", channels: { rx: 0, tx: 0, combined: 4, other: 1 } },
    words: "set 5 combined queues",
  },
  {
    when: "before",
    apply: { kind: "rss", indirection: Array.from({ length: 128 }, (_, i) => i % 4) },
    undo: { kind: "rss", indirection: null },
    was: { kind: "rss", indirection: Array.from({ length: 128 }, (_, i) => Math.floor(i / 32)) },
    words: "take queue 4 out of the RSS table",
  },
];

describe("igb with four queues", () => {
  it.each(["SIGTERM", "SIGKILL"] as const)(
    "has its queues, RSS table and VLAN stripping back after %s, and takes ethtool -L 2 then",
    async (signal) => {
      const before = await settings(guest, "nic0");
      // A flow that looks at tags has VLAN stripping switched off.
      const { process, said } = await own(guest, "nic0", "vlan and udp", steps);
      expect(said()).toContain("live");
      const during = await settings(guest, "nic0");
      expect(during).toMatch(/Current hardware settings:[\s\S]*Combined:\s+5/);
      expect(during).toMatch(/with 5 RX ring\(s\):\s+0:\s+0 +1 +2 +3 +0/);
      expect(during).toContain("rx-vlan-offload: off");
      // The process alone: its guardian is in a session of its own and lives on.
      process.kill(signal);
      await process.ended;
      await undone(guest);
      expect(await settings(guest, "nic0")).toBe(before);
      await shell(guest, "ethtool -L nic0 combined 2 && ethtool -L nic0 combined 4");
      expect(await settings(guest, "nic0")).toBe(before);
    },
    MINUTES,
  );
});
