// What an IOMMU group allows: whether it can be given away, and whether physical addresses lead anywhere in it.

/** With these a group can still be given away (vfio_dev_viable, drivers/vfio/group.c). */
const VIABLE: ReadonlySet<string> = new Set(["vfio-pci", "pci-stub", "pcieport"]);

/** A function with that driver, or without one, leaves its group free to be given away. */
export function leavesGroupFree(driver: string | null | undefined): boolean {
  return driver == null || VIABLE.has(driver);
}

/** @param type Of the group, as the kernel calls it (/sys/kernel/iommu_groups/N/type); null where there is none. */
export function translatesAddresses(type: string | null): boolean {
  return type !== null && type !== "identity";
}
