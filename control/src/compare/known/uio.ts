// UIO: a whole PCI function with its registers mapped into a process, and physical addresses.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

const UIO = "Documentation/driver-api/uio-howto.rst";

const whole: Pick<Known, "kernelNetdev" | "vm" | "ethernet" | "security" | "performance"> = {
  kernelNetdev: fact("no: the whole function leaves the kernel, its interface disappears", UIO),
  vm: fact("yes: any virtual PCI card with a driver in user space", "docs/direct-access.md"),
  ethernet: fact("yes, by a driver in user space (here igb, igbvf, e1000e, virtio)", "docs/direct-access.md"),
  security: fact(
    "none: the process programs the card's DMA with physical addresses and can reach all memory; root only",
    UIO + "; docs/direct-access.md",
  ),
  performance: fact(
    "the card's own rings, no copy, no system call, no IOMMU; the process polls",
    "docs/direct-access.md",
  ),
};

export const uioPciGeneric: Known = {
  ...whole,
  upstream: fact(
    "in tree since Linux 2.6.32",
    "drivers/uio/uio_pci_generic.c (there in 2.6.32.9); " + UIO + ", revision 0.9 (July 2009)",
  ),
  hardware: fact(
    "a PCI function whose legacy interrupt can be masked (PCI 2.3), or that has none (virtual functions, which poll); memory that stays at its physical address",
    "drivers/uio/uio_pci_generic.c; " + UIO,
  ),
};

export const igbUio: Known = {
  ...whole,
  upstream: fact(
    "never in tree: part of DPDK, then of its dpdk-kmods repository; built for each kernel",
    "DPDK guides 20.08, Linux Drivers; Debian's dpdk-kmods-dkms",
  ),
  hardware: fact(
    "any PCI function, virtual ones too (MSI-X); memory that stays at its physical address",
    "DPDK guides 20.08, Linux Drivers",
  ),
};
