// VFIO: a whole PCI function given to a process, behind the IOMMU: by group, by iommufd, or without one at all.
import {
  lackIf,
  lacksCapability,
  lacksHugepages,
  lacksModule,
  lacksSpareFunction,
  type Lack,
  type Mechanism,
  type Probed,
} from "./mechanism.js";

const IOMMU =
  "switch VT-d or AMD-Vi on in the firmware, and add intel_iommu=on (Intel) to the kernel's command line";

function iommu({ machine, card }: Probed): Lack[] {
  const { pci } = card;
  return [
    ...lackIf(machine.iommu.groups === 0, "no IOMMU is at work", IOMMU),
    ...lackIf(
      machine.iommu.groups > 0 && pci !== null && pci.iommuGroup === null,
      `${pci?.address ?? ""} is in no IOMMU group`,
      IOMMU,
    ),
    ...(pci?.groupMembers ?? []).map(({ address, driver }) => ({
      what: `${address} (${driver}) shares its IOMMU group: they go together`,
      mend: `sudo sh -c 'echo ${address} > /sys/bus/pci/devices/${address}/driver/unbind', or put the card into another slot`,
    })),
  ];
}

/** By group: /dev/vfio/N. */
export const vfioGroup: Mechanism = {
  name: "VFIO group",
  probe: (facts) => [
    ...lacksSpareFunction(facts, "vfio"),
    ...iommu(facts),
    ...lacksModule(facts, "vfio-pci"),
    ...lacksCapability(facts, "CAP_SYS_ADMIN"),
  ],
};

/** By iommufd: /dev/iommu and /dev/vfio/devices/vfioN. */
export const vfioIommufd: Mechanism = {
  name: "VFIO iommufd",
  probe: (facts) => [
    ...lacksSpareFunction(facts, "iommufd"),
    ...iommu(facts),
    ...lacksModule(facts, "vfio-pci"),
    ...(facts.machine.devices.iommufd ? [] : lacksModule(facts, "iommufd")),
    ...lacksCapability(facts, "CAP_SYS_ADMIN"),
  ],
};

/** Without an IOMMU: the process can make the card write anywhere. */
export const vfioNoIommu: Mechanism = {
  name: "VFIO without IOMMU",
  probe: (facts) => {
    const off = "sudo sh -c 'echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode'";
    return [
      ...lacksSpareFunction(facts, "vfio-noiommu"),
      ...lacksModule(facts, "vfio-pci"),
      ...lackIf(
        facts.card.pci !== null && facts.card.pci.iommuGroup !== null,
        "the card is behind an IOMMU, which vfio then uses",
        "use VFIO with the IOMMU: it is safer",
      ),
      ...lackIf(
        facts.machine.noIommuMode === null && facts.machine.modules["vfio-pci"] === "there",
        "the kernel was built without CONFIG_VFIO_NOIOMMU",
        "use a kernel that has it",
      ),
      ...lackIf(facts.machine.noIommuMode === false, "vfio's mode without an IOMMU is off", off),
      ...lacksHugepages(facts),
      ...lacksCapability(facts, "CAP_SYS_RAWIO"),
    ];
  },
};
