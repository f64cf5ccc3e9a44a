// Cards taken whole in a guest without an IOMMU: VFIO without memory protection, UIO, and what is refused there.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  bringUpCards,
  everyCard,
  pciOf,
  takeDownCards,
  tryRows,
  withFunction,
  type Wires,
} from "../testing/guest-card.js";
import { failure, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
const UNSAFE = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

let guest: Guest;
let wires: Wires;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio", kernel: "lab", iommu: "none" });
  wires = await bringUpCards(guest);
}, BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, `echo N > ${UNSAFE}`);
  await takeDownCards(guest, wires);
});

describe("a card without an IOMMU before it", () => {
  it(
    "is refused by what needs one, and by VFIO until root has allowed it",
    async () => {
      const take = (...words: string[]) => failure(guest, ["take", pciOf(guest, "nic0"), ...words]);
      expect(await take()).toMatchObject({
        code: "E_CARD_GROUP",
        why: expect.stringContaining("no IOMMU group") as string,
      });
      expect(await take("--via", "iommufd")).toMatchObject({ code: "E_CARD_GROUP" });
      expect(await take("--via", "vfio-noiommu")).toMatchObject({ code: "E_NO_MEMORY_PROTECTION" });
      expect(await take("--via", "vfio-noiommu", "--no-memory-protection")).toMatchObject({
        code: "E_CARD_GROUP",
        why: expect.stringContaining("takes no card without an IOMMU") as string,
      });
    },
    MINUTES,
  );

  it.each(["vfio-noiommu", "uio_pci_generic"] as const)(
    "via %s is bound, carries frames both ways, sleeps by interrupts, and is given back as it was",
    async (via) => {
      await shell(guest, `echo Y > ${UNSAFE}`);
      await tryRows(guest, everyCard(guest, via, wires));
    },
    MINUTES,
  );

  it(
    "may be a virtual function",
    async () => {
      await withFunction(guest, wires.igb, ["vfio-noiommu"], (rows) => tryRows(guest, rows));
    },
    MINUTES,
  );
});
