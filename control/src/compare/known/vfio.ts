// VFIO: a whole PCI function given to a process: by group, by iommufd, or without an IOMMU.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

const VFIO = "Documentation/driver-api/vfio.rst";

const whole: Pick<Known, "kernelNetdev" | "ethernet" | "performance"> = {
  kernelNetdev: fact("no: the whole function leaves the kernel, its interface disappears", VFIO),
  ethernet: fact("yes, by a driver in user space (here igb, igbvf, e1000e, virtio)", "docs/direct-access.md"),
  performance: fact(
    "the card's own rings, no copy, no system call; the process polls",
    "docs/direct-access.md",
  ),
};

export const vfioGroup: Known = {
  ...whole,
  upstream: fact("in tree since Linux 3.6", VFIO),
  vm: fact("needs a virtual IOMMU in the VM (intel-iommu, virtio-iommu)", "docs/lab.md"),
  hardware: fact("an IOMMU, and a function that is alone in its group", VFIO),
  security: fact("the IOMMU confines the card's DMA to what was mapped; the group is one file's right", VFIO),
};

export const vfioIommufd: Known = {
  ...whole,
  upstream: fact(
    "in tree: iommufd since Linux 6.2, the device files of vfio since 6.6",
    "Documentation/userspace-api/iommufd.rst; " + VFIO,
  ),
  vm: fact("needs a virtual IOMMU in the VM", "docs/lab.md"),
  hardware: fact("an IOMMU, and a function that is alone in its group", VFIO),
  security: fact(
    "as by group; one descriptor a device, and memory accounted by the kernel for each process",
    "Documentation/userspace-api/iommufd.rst",
  ),
};

export const vfioNoIommu: Known = {
  ...whole,
  upstream: fact("in tree since Linux 4.5 (CONFIG_VFIO_NOIOMMU), taints the kernel", "drivers/vfio/Kconfig"),
  vm: fact("yes, without a virtual IOMMU", "drivers/vfio/Kconfig"),
  hardware: fact(
    "no IOMMU is needed; memory that stays at its physical address (huge pages)",
    "docs/direct-access.md",
  ),
  security: fact(
    "none: the process can make the card write anywhere; needs CAP_SYS_RAWIO",
    "drivers/vfio/Kconfig; drivers/vfio/group.c",
  ),
};
