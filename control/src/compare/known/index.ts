// What is known of all mechanisms, by the names that the doctor's probes have, after the kernel socket as the baseline.
import { afPacket } from "./af-packet.js";
import { afXdpCopy, afXdpZeroCopy } from "./af-xdp.js";
import { kernelSocket } from "./kernel-socket.js";
import type { Known } from "./known.js";
import { queueLease } from "./queue-lease.js";
import { sriovVf } from "./sriov.js";
import { igbUio, uioPciGeneric } from "./uio.js";
import { verbs } from "./verbs.js";
import { vfioGroup, vfioIommufd, vfioNoIommu } from "./vfio.js";
import { vhostUser } from "./vhost-user.js";

export type { Known } from "./known.js";

/** The baseline: what every program has without any of the others. */
export const BASELINE = "kernel socket";

/** What is known, in the order of the table. */
export const KNOWN: Readonly<Record<string, Known>> = {
  [BASELINE]: kernelSocket,
  AF_PACKET: afPacket,
  "AF_XDP copy": afXdpCopy,
  "AF_XDP zero-copy": afXdpZeroCopy,
  "queue lease": queueLease,
  "VFIO group": vfioGroup,
  "VFIO iommufd": vfioIommufd,
  "VFIO without IOMMU": vfioNoIommu,
  uio_pci_generic: uioPciGeneric,
  igb_uio: igbUio,
  "SR-IOV VF": sriovVf,
  verbs,
  "vhost-user": vhostUser,
};
