// Cards taken whole in a guest without an IOMMU: VFIO without memory protection, UIO, and what is refused there.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { everyCard, pciOf, tryRows, withFunction } from "../testing/guest-card.js";
import { failure, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
const UNSAFE = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

let guest: Guest;
let igb: Wire;
let e1000e: Wire;
let virtio: Wire;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio", kernel: "lab", iommu: "none" });
  igb = await bringUp(guest, "nic0", 1400);
  e1000e = await bringUp(guest, "nic1", 1400);
  virtio = await bringUp(guest, "nic2", 1400);
  await shell(guest, "echo 16 > /proc/sys/vm/nr_hugepages");
}, BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, `echo N > ${UNSAFE}; echo 0 > /proc/sys/vm/nr_hugepages; rm -rf /run/bifurcate/cards`);
  for (const wire of [igb, e1000e, virtio]) await takeDown(guest, wire);
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
      await tryRows(guest, everyCard(guest, via, { igb, e1000e, virtio }));
    },
    MINUTES,
  );

  it(
    "may be a virtual function",
    async () => {
      await withFunction(guest, igb, ["vfio-noiommu"], (rows) => tryRows(guest, rows));
    },
    MINUTES,
  );
});
