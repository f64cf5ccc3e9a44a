// The facts about one card that mechanisms ask for: those of a plan, what is left of splits, and its place on the bus.
import { leavesGroupFree } from "../card/group.js";
import { standsOn } from "../card/in-use.js";
import { findLink, readFacts, uppers, type Facts } from "../facts/facts.js";
import type { Kernel, Netns } from "../kernel.js";
import { brokerOn, type BrokerHold } from "../lease/registry.js";
import type { XskFacts } from "../observe/kernel.js";
import { queuesOf } from "../steering/make-plan.js";
import { listSplits, splitsOn, type SplitEntry } from "../transaction/registry.js";
import type { Files } from "./files.js";

/** A card's place on the PCI bus. */
export interface PciPlace {
  /** E.g. "0000:01:00.0". */
  readonly address: string;
  /** Vendor and device, e.g. "8086:10c9". */
  readonly id: string;
  /** Number of its IOMMU group; null where there is none. */
  readonly iommuGroup: number | null;
  /** Other functions of the group that have a driver of the kernel's: the group goes as a whole or not at all. */
  readonly groupMembers: readonly { readonly address: string; readonly driver: string }[];
  /** How the IOMMU serves the group ("DMA", "DMA-FQ", "identity"); null where there is none. */
  readonly groupType: string | null;
  /** How many virtual functions it can have, and the addresses of those that it has. */
  readonly virtualFunctions: { readonly total: number; readonly now: readonly string[] };
}

/** The facts about one card. */
export interface Card {
  readonly facts: Facts;
  /** Receive queues in use. */
  readonly queues: number;
  /** What of the kernel's stands on it, in words ("br0.7 stands on eth0"). */
  readonly above: readonly string[];
  /** Splits of the dead whose settings are still on it. */
  readonly stale: readonly SplitEntry[];
  /** AF_XDP sockets on it; null where they cannot be looked for. */
  readonly sockets: readonly XskFacts[] | null;
  /** What a broker has on it: its program is nobody else's. Null where it has nothing. */
  readonly broker: BrokerHold | null;
  /** null for what stands on no PCI bus. */
  readonly pci: PciPlace | null;
  /** VIRTIO_F_ACCESS_PLATFORM was negotiated; null for what is no virtio card. */
  readonly accessPlatform: boolean | null;
}

/** Bit of VIRTIO_F_ACCESS_PLATFORM (virtio 1.2, 6 Reserved Feature Bits). */
const ACCESS_PLATFORM = 33;
const PCI_ADDRESS = /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;

/**
 * Reads the facts about a card; throws what readFacts throws.
 * @param stateDirectory Where the journals of splits are.
 */
export function readCard(
  kernel: Kernel,
  netns: Netns,
  files: Files,
  ifname: string,
  stateDirectory: string,
): Card {
  const links = netns.links();
  const link = findLink(links, ifname);
  const facts = readFacts(kernel, netns, ifname, splitsOn(stateDirectory, netns.inode, link.index));
  const queues = queuesOf(facts);
  const { splits } = listSplits(stateDirectory);
  return {
    facts,
    queues,
    above: standsOn(link, uppers(links, link.index)),
    stale: splits.filter(
      (each) =>
        each.state === "stale" && each.netnsInode === netns.inode && each.ifindex === facts.link.index,
    ),
    sockets: socketsOf(netns, facts.link.index, queues),
    broker: brokerOn(stateDirectory, netns.inode, facts.link, facts.xdp),
    pci: placeOf(files, facts.driver.bus),
    accessPlatform: accessPlatform(files, facts.driver.bus),
  };
}

/** What is refused (no rights, no such facility) is not known. */
function socketsOf(netns: Netns, ifindex: number, queues: number): XskFacts[] | null {
  try {
    return netns.xskSockets(ifindex, queues);
  } catch {
    return null;
  }
}

function placeOf(files: Files, address: string): PciPlace | null {
  if (!PCI_ADDRESS.test(address)) return null;
  const folder = `/sys/bus/pci/devices/${address}`;
  const text = (name: string): string => (files.read(`${folder}/${name}`) ?? "").trim();
  const group = files.target(`${folder}/iommu_group`);
  return {
    address,
    id: [text("vendor"), text("device")].map((each) => each.replace(/^0x/, "")).join(":"),
    iommuGroup: group === null ? null : Number(group),
    groupMembers: group === null ? [] : membersOf(files, group, address),
    groupType:
      group === null ? null : (files.read(`/sys/kernel/iommu_groups/${group}/type`) ?? "").trim() || null,
    virtualFunctions: {
      total: Number(text("sriov_totalvfs") || 0),
      now: files
        .list(folder)
        .filter((name) => /^virtfn\d+$/.test(name))
        .map((name) => files.target(`${folder}/${name}`) ?? name),
    },
  };
}

/** Those that keep the group from being given away. */
function membersOf(files: Files, group: string, card: string): PciPlace["groupMembers"] {
  return files.list(`/sys/kernel/iommu_groups/${group}/devices`).flatMap((address) => {
    const driver = files.target(`/sys/bus/pci/devices/${address}/driver`);
    return address === card || driver === null || leavesGroupFree(driver) ? [] : [{ address, driver }];
  });
}

function accessPlatform(files: Files, address: string): boolean | null {
  if (!PCI_ADDRESS.test(address)) return null;
  const folder = `/sys/bus/pci/devices/${address}`;
  const virtio = files.list(folder).find((name) => /^virtio\d+$/.test(name));
  if (virtio === undefined) return null;
  // A string of 0 and 1, the bit of feature n at place n.
  const features = files.read(`${folder}/${virtio}/features`);
  return features === null ? null : features[ACCESS_PLATFORM] === "1";
}
