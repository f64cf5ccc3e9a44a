// One look at all counters on a packet's way; two of them, a while apart, tell where packets vanish.
import { errnoOf, BifurcateError, wrapError } from "../../errors.js";
import { findLink } from "../../facts/facts.js";
import { settingsOf, type Settings } from "../../facts/settings.js";
import type { Kernel, Link, Netns } from "../../kernel.js";
import type { LinkCounters, XskFacts } from "../../observe/kernel.js";
import { leaseOf, type ExplainFacts } from "../facts.js";

/** The port of a broker's lease: what its flow comes to. */
export interface PortSample {
  readonly ifname: string;
  readonly counters: LinkCounters;
  readonly sockets: readonly XskFacts[];
}

/** All counters at one moment. */
export interface Sample {
  readonly link: Link;
  readonly counters: LinkCounters;
  /** Frames by receive queue, where the driver counts them. */
  readonly queues: ReadonlyMap<number, number>;
  /** Frames that an ntuple rule of the card matched; null where the driver does not count them. */
  readonly matched: number | null;
  /** How often the attached program ran; null where none is, or it cannot be counted (CAP_SYS_ADMIN). */
  readonly runs: number | null;
  readonly sockets: readonly XskFacts[];
  /** Of the packet's lease; null where it has none, or queues of its own. */
  readonly port: PortSample | null;
  /** Counters of the kernel's stack by name. */
  readonly stack: Readonly<Record<string, number>>;
  /** What else must stay as it is for two samples to be compared. */
  readonly settings: Settings;
}

/**
 * Drivers' own names of "frames received on queue N": veth, virtio_net, igb, ixgbe/i40e, ice, mlx5, ena. Counts of XDP come before
 * those of the stack, which miss what a program took.
 */
const QUEUE_COUNTERS: readonly RegExp[] = [
  /^rx_queue_(\d+)_xdp_packets$/,
  /^rx_queue_(\d+)_packets$/,
  /^rx-(\d+)\.packets$/,
  /^rx(\d+)_packets$/,
  /^queue_(\d+)_rx_cnt$/,
];

/** Frames by queue out of a driver's counters; empty where it counts none, or none by queue. */
export function queueCounters(
  counters: readonly { readonly name: string; readonly value: number }[] | null,
): Map<number, number> {
  for (const pattern of QUEUE_COUNTERS) {
    const found = (counters ?? []).flatMap(({ name, value }) => {
      const queue = pattern.exec(name)?.[1];
      return queue === undefined ? [] : [[Number(queue), value] as const];
    });
    if (found.length > 0) return new Map(found);
  }
  return new Map();
}

/**
 * Drivers' own names of "frames that a rule of the card matched": ixgbe_ethtool.c (Flow Director; while ntuple rules are on,
 * it knows no others), i40e_ethtool.c and ice_ethtool.c (its sideband filters, which are those of ethtool -N).
 */
const RULE_COUNTERS: ReadonlySet<string> = new Set(["fdir_match", "port.fdir_sb_match", "fdir_sb_match.nic"]);

/** Frames that a rule matched, out of a driver's counters; null where it does not count them. */
export function ruleCounter(
  counters: readonly { readonly name: string; readonly value: number }[] | null,
): number | null {
  return counters?.find(({ name }) => RULE_COUNTERS.has(name))?.value ?? null;
}

/** Takes a sample; E_INTERFACE_GONE when the card is not there any more. */
export function takeSample(kernel: Kernel, netns: Netns, facts: ExplainFacts): Sample {
  const { name, index } = facts.card.facts.link;
  try {
    const link = findLink(netns.links(), name);
    if (link.index !== index) throw gone(name, "another card has its name now");
    const counted = netns.driverCounters(name);
    return {
      link,
      counters: netns.linkCounters(index),
      queues: queueCounters(counted),
      matched: ruleCounter(counted),
      runs: link.xdp === null ? null : runsOf(kernel, link.xdp.programId),
      sockets: facts.card.sockets === null ? [] : netns.xskSockets(index, facts.card.queues),
      port: portOf(netns, facts),
      stack: netns.stackCounters(),
      settings: settingsOf(netns, link),
    };
  } catch (thrown) {
    const missing = thrown instanceof BifurcateError && thrown.code === "E_NO_SUCH_INTERFACE";
    if (missing || errnoOf(thrown) === "ENODEV")
      throw gone(name, "it was deleted, or moved to another namespace");
    throw wrapError(thrown, `count packets on ${name}`);
  }
}

/** Ends of a port may go at any time, with their lease. */
function portOf(netns: Netns, facts: ExplainFacts): PortSample | null {
  const lease = leaseOf(facts);
  if (lease === null || (lease.own ?? null) !== null) return null;
  const link = netns.links().find(({ name }) => name === lease.names.far);
  if (link === undefined) return null;
  // A port has at most as many queues as its card.
  const sockets = facts.card.sockets === null ? [] : netns.xskSockets(link.index, facts.card.queues);
  return { ifname: link.name, counters: netns.linkCounters(link.index), sockets };
}

function gone(name: string, why: string): BifurcateError {
  return new BifurcateError("E_INTERFACE_GONE", {
    what: `count packets on ${name}`,
    why,
    next: "Explain the packet again when the card is back.",
  });
}

function runsOf(kernel: Kernel, programId: number): number | null {
  try {
    return kernel.programRuns(programId)?.runs ?? null;
  } catch {
    return null;
  }
}
