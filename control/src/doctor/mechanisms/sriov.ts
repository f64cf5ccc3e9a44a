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
        now > 0,
        `${pci.address} has ${now} virtual ${now === 1 ? "function" : "functions"} already, which somebody else made`,
        `sudo sh -c 'echo 0 > /sys/bus/pci/devices/${pci.address}/sriov_numvfs'`,
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
