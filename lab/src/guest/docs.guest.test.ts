// The blocks of docs/lab.md that are typed in a guest's shell, run there as they stand.
import { beforeAll, describe } from "vitest";
import type { Guest } from "./guest.js";
import { BOOT_LIMIT, sharedGuest } from "./shared.js";
import { testBlocks } from "./testing/page-blocks.js";

describe("docs/lab.md", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  }, BOOT_LIMIT);

  testBlocks("guest", () => guest);
});
