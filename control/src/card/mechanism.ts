// The ways for a process to have a card: their names, their kernel drivers, and which of them protect memory.
import { BifurcateError } from "../errors.js";

/** The ways for a process to have a card. Only the first two protect the host's memory. */
export const MECHANISMS = ["vfio", "iommufd", "vfio-noiommu", "uio_pci_generic", "igb_uio"] as const;
export type Mechanism = (typeof MECHANISMS)[number];

/** Whether the IOMMU holds the card to the memory that is mapped for it. */
export function protectsMemory(via: Mechanism): boolean {
  return via === "vfio" || via === "iommufd";
}

/** The kernel driver that a card has to be bound to. */
export function driverOf(via: Mechanism): string {
  return via === "uio_pci_generic" || via === "igb_uio" ? via : "vfio-pci";
}

/** The kernel drivers that hand a card to user space, or just hold it. */
export const HANDING_DRIVERS: ReadonlySet<string> = new Set([
  "vfio-pci",
  "uio_pci_generic",
  "igb_uio",
  "pci-stub",
]);

/**
 * Holds who asks for a mechanism without memory protection to having said so, and to being root.
 * @throws E_NO_MEMORY_PROTECTION, E_NOT_PRIVILEGED
 */
export function checkProtection(what: string, via: Mechanism, said: boolean, how: string): void {
  if (protectsMemory(via)) return;
  if (!said) {
    throw new BifurcateError("E_NO_MEMORY_PROTECTION", {
      what,
      why: `with ${via} no IOMMU stands between the card and memory: the card, and whoever drives it, can read and change all of it`,
      next: `Use vfio or iommufd; or, where that is wanted all the same, say it by name: ${how}.`,
    });
  }
  if (process.geteuid?.() === 0) return;
  throw new BifurcateError("E_NOT_PRIVILEGED", {
    what,
    why: `${via} gives power over all memory, so it is for root alone`,
    next: "Run it as root, or use vfio or iommufd.",
  });
}
