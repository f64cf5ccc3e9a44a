// UIO: a whole PCI function given to a process, with physical addresses and no protection of memory.
import { translatesAddresses } from "../../card/group.js";
import {
  lackIf,
  lacksCapability,
  lacksHugepages,
  lacksModule,
  lacksSpareFunction,
  type Mechanism,
  type Probed,
} from "./mechanism.js";
import type { Lack } from "./mechanism.js";

function probe(facts: Probed, module: "uio_pci_generic" | "igb_uio"): Lack[] {
  const { pci } = facts.card;
  return [
    ...lacksSpareFunction(facts, module),
    ...lacksModule(facts, module),
    ...lackIf(
      translatesAddresses(pci?.groupType ?? null),
      `the IOMMU translates the addresses of its group (${pci?.groupType ?? ""}): physical ones lead nowhere`,
      "use VFIO, which protects memory; or boot with iommu=pt",
    ),
    ...lacksHugepages(facts),
    ...lacksCapability(facts, "CAP_SYS_ADMIN", "CAP_SYS_RAWIO"),
  ];
}

/** The driver of the kernel's own tree. */
export const uioPciGeneric: Mechanism = {
  name: "uio_pci_generic",
  probe: (facts) => probe(facts, "uio_pci_generic"),
};

/** DPDK's driver, outside of the kernel's tree. */
export const igbUio: Mechanism = { name: "igb_uio", probe: (facts) => probe(facts, "igb_uio") };
