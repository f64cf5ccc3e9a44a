// SR-IOV: the card makes virtual functions of itself; one goes to a process, the physical one stays with the kernel.
import { lackIf, lacksModule, type Mechanism } from "./mechanism.js";

/** The mechanism. */
export const sriovVf: Mechanism = {
  name: "SR-IOV VF",
  probe: (facts) => {
    const { pci, facts: card } = facts.card;
    if (pci === null) return [{ what: `${card.link.name} is on no PCI bus`, mend: null }];
    const { total, now } = pci.virtualFunctions;
    return [
      ...lackIf(total === 0, `${pci.address} has no virtual functions`, null),
      // A split makes the one that it needs, and lets others' alone.
      ...lackIf(
        now.length > 0,
        `${pci.address} has virtual functions already: ${now.join(", ")}; their number can only be changed from 0`,
        `take one that nobody uses, and open it: sudo bifurcate take ${now[0] ?? ""}`,
      ),
      ...lackIf(
        facts.machine.iommu.groups === 0,
        "no IOMMU is at work",
        "switch VT-d or AMD-Vi on in the firmware",
      ),
      ...lacksModule(facts, "vfio-pci"),
    ];
  },
};
