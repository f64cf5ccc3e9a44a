// SR-IOV: the card makes virtual functions of itself, and one of them goes to a process by VFIO.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

const SRIOV = "Documentation/PCI/pci-iov-howto.rst";

export const sriovVf: Known = {
  upstream: fact(
    "in tree: SR-IOV since Linux 2.6.30, with igb as the physical function's driver; vfio-pci since 3.6",
    SRIOV +
      "; autotest's KVM test of PCI assignment (igb and igbvf in 2.6.30); Documentation/driver-api/vfio.rst",
  ),
  kernelNetdev: fact(
    "yes: the physical function stays with the kernel; frames are told apart by MAC address, VLAN or the card's rules",
    SRIOV,
  ),
  vm: fact(
    "a VM gets a function passed through; to make functions in one needs an emulated igb",
    "docs/lab.md",
  ),
  ethernet: fact("yes, by a driver in user space (here igbvf)", "docs/direct-access.md"),
  hardware: fact("a card with SR-IOV, firmware that leaves room for it, and an IOMMU", SRIOV),
  security: fact(
    "the IOMMU confines the function's DMA; the physical function checks spoofed addresses and can take it back",
    "ip-link(8), vf spoofchk; " + SRIOV,
  ),
  performance: fact(
    "the function's own rings, no copy, no system call; the process polls",
    "docs/direct-access.md",
  ),
};
