// A card that shares its IOMMU group with another: refused while that one is in the kernel's hands, and named.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { beforeAll, expect, it } from "vitest";
import { pciOf } from "../testing/guest-card.js";
import { failure, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;

beforeAll(async () => {
  const nics = [{ model: "virtio" }, { model: "virtio", sharesSlot: true }] as const;
  guest = await sharedGuest({ nics, kernel: "lab", iommu: "intel" });
}, BOOT_LIMIT);

it(
  "is refused with the other's name by VFIO, and taken once the other has left its driver",
  async () => {
    const [card, other] = [pciOf(guest, "nic0"), pciOf(guest, "nic1")];
    expect(other).toBe(card.replace(/0$/, "1"));
    for (const via of ["vfio", "iommufd"]) {
      expect(await failure(guest, ["take", card, "--via", via])).toMatchObject({
        code: "E_CARD_GROUP",
        why: expect.stringMatching(new RegExp(`is shared with ${other} \\(virtio-pci\\)$`)) as string,
      });
    }
    const driver = "/sys/bus/pci/drivers/virtio-pci";
    await shell(guest, `echo ${other} > ${driver}/unbind && bifurcate take ${card}`);
    await shell(guest, `bifurcate give ${card} && echo ${other} > ${driver}/bind`);
  },
  MINUTES,
);
