// The blocks of docs/lab.md that are typed in the shell of a guest without an IOMMU, run there as they stand.
import { beforeAll, describe } from "vitest";
import type { Guest } from "./guest.js";
import { BOOT_LIMIT, sharedGuest } from "./shared.js";
import { testBlocks } from "./testing/page-blocks.js";

describe("docs/lab.md", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await sharedGuest({ nics: "igb,e1000e,virtio", kernel: "lab", iommu: "none" });
  }, BOOT_LIMIT);

  testBlocks("guest --iommu none", () => guest);
});
