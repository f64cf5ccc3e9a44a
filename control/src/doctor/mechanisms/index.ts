// Every mechanism by which packets reach user space, in the order of the comparison.
import { afPacket } from "./af-packet.js";
import { afXdpCopy, afXdpZeroCopy } from "./af-xdp.js";
import type { Lack, Mechanism, Probed } from "./mechanism.js";
import { queueLease } from "./queue-lease.js";
import { sriovVf } from "./sriov.js";
import { igbUio, uioPciGeneric } from "./uio.js";
import { verbs } from "./verbs.js";
import { vfioGroup, vfioIommufd, vfioNoIommu } from "./vfio.js";
import { vhostUser } from "./vhost-user.js";

export type { Lack, Mechanism, Probed } from "./mechanism.js";

/** All of them. The kernel's own socket, the baseline, needs no probe. */
export const MECHANISMS: readonly Mechanism[] = [
  afPacket,
  afXdpCopy,
  afXdpZeroCopy,
  queueLease,
  vfioGroup,
  vfioIommufd,
  vfioNoIommu,
  uioPciGeneric,
  igbUio,
  sriovVf,
  verbs,
  vhostUser,
];

/** A mechanism on a card. */
export interface MechanismState {
  readonly name: string;
  /** It lacks nothing. */
  readonly ready: boolean;
  readonly lacks: readonly Lack[];
}

/** What each mechanism still lacks on a card. */
export function probeMechanisms(facts: Probed): MechanismState[] {
  return MECHANISMS.map(({ name, probe }) => {
    const lacks = probe(facts);
    return { name, ready: lacks.length === 0, lacks };
  });
}
