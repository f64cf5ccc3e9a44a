// What an IOMMU is for, shown: a card that is told a wrong address is stopped by it, and without it writes there.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bringExample, pciOf } from "../testing/guest-card.js";
import { shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;
let wire: Wire;

/** What the program saw of the page set aside. */
interface Proof {
  readonly received: number;
  /** Bytes of the page that are others now. */
  readonly changed: number;
  /** What the IOMMU said, as the process that owns the card learns it. */
  readonly fault: string | null;
}

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  // With its wrong address, which nothing that ships has.
  await bringExample(guest, "bifurcate-datapath", "dma_proof", ["wrong-dma"]);
  wire = await bringUp(guest, "nic0");
  await shell(guest, "echo 16 > /proc/sys/vm/nr_hugepages");
  // The program may have to be built first.
}, 2 * BOOT_LIMIT);

afterAll(async () => {
  await shell(guest, "echo 0 > /proc/sys/vm/nr_hugepages; rm -f /tmp/dma_proof; rm -rf /run/bifurcate/cards");
  await takeDown(guest, wire);
});

/** Takes the card, tells it a wrong address, sends frames to it, and gives it back. */
async function prove(via: "vfio" | "uio_pci_generic"): Promise<Proof> {
  const address = pciOf(guest, "nic0");
  await shell(guest, `bifurcate take ${address} --via ${via} --no-memory-protection`);
  const { far, nic } = wire;
  const said = await shell(
    guest,
    `ip netns exec ${far.netns} ping -q -i 0.2 ${nic.v4} > /dev/null & ping=$!; ` +
      `/tmp/dma_proof ${address} ${via}; kill $ping`,
  );
  await shell(guest, `bifurcate give ${address}`);
  return JSON.parse(said.trim().split("\n").at(-1)!) as Proof;
}

describe("a wrong address in a descriptor", () => {
  it(
    "is stopped by the IOMMU: memory is unchanged, log and owner say so, and the card can be taken again",
    async () => {
      const proof = await prove("vfio");
      expect(proof.received).toBeGreaterThan(0);
      expect(proof.changed).toBe(0);
      expect(proof.fault).toContain("DMA Write");
      const log = await shell(guest, "dmesg");
      // Kernels write the address with its domain, or without.
      const short = pciOf(guest, "nic0").replace("0000:", "");
      expect(log).toMatch(new RegExp(`DMAR: \\[DMA Write.*Request device \\[(0000:)?${short}\\]`));
      expect(await prove("vfio")).toMatchObject({ changed: 0 });
    },
    MINUTES,
  );

  it(
    "is written to where nothing protects memory: in a page set aside for it",
    async () => {
      const proof = await prove("uio_pci_generic");
      expect(proof.received).toBeGreaterThan(0);
      expect(proof.changed).toBeGreaterThan(13);
      expect(proof.fault).toBeNull();
    },
    MINUTES,
  );
});
