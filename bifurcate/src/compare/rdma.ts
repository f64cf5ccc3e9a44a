// Which RDMA devices stand on the two ends of a wire.

import { machineFiles, type Files } from "@bifurcate/control";
import type { Means, Wire } from "./phases.js";

const CLASS = "/sys/class/infiniband";

/** The RDMA device of an interface; undefined when there is none. Interfaces of all namespaces have different names here. */
function deviceOf(ifname: string, files: Files): string | undefined {
  return files
    .list(CLASS)
    .find((name) => files.read(`${CLASS}/${name}/ports/1/gid_attrs/ndevs/0`)?.trim() === ifname);
}

/** How datagrams are measured on a wire; undefined where an end has no RDMA device. */
export function overRdma({ card, peer }: Wire, files: Files = machineFiles): Means | undefined {
  const [ours, theirs] = [deviceOf(card.ifname, files), deviceOf(peer.ifname, files)];
  if (ours === undefined || theirs === undefined || ours === theirs) return undefined;
  return { kind: "verbs", card: ours, peer: theirs };
}
