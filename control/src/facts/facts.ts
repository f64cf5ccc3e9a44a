// Everything that a plan is made from, read once: the card, who uses it, who is logged in over it.
import { randomBytes } from "node:crypto";
import { BifurcateError, errnoOf, wrapError } from "../errors.js";
import type {
  Address,
  Channels,
  DriverInfo,
  Feature,
  Kernel,
  Link,
  Netns,
  NtupleRule,
  ProgramOwner,
  Rings,
  Route,
  Rss,
  SocketFacts,
  TcIngress,
  XdpFeatures,
} from "../kernel.js";
import { inheritedVariable, socketHolders } from "./processes.js";
import { sessionsOver, type Session } from "./session.js";

/** A listener of the kernel: a socket that would no longer hear what a split takes. */
export interface Listener {
  readonly socket: SocketFacts;
  /** "named (pid 512)", or null where the holder cannot be seen. */
  readonly holder: string | null;
}

/** A split that is live on the same interface. */
export interface OtherSplit {
  readonly id: string;
  readonly pid: number;
  readonly flows: readonly string[];
  readonly backend: "af_xdp" | "af_packet" | "vf";
  readonly queues: readonly number[];
}

/** A device below or beside the split's own whose features a split has to look at. */
export interface LowerDevice {
  readonly link: Link;
  readonly features: Readonly<Record<string, Feature>>;
}

/** The facts about one interface in one namespace. */
export interface Facts {
  readonly netns: { readonly inode: number };
  readonly link: Link;
  readonly driver: DriverInfo;
  readonly channels: { readonly max: Channels; readonly now: Channels } | null;
  readonly rings: Rings | null;
  readonly rss: Rss | null;
  readonly features: Readonly<Record<string, Feature>>;
  readonly ntuple: { readonly rules: readonly NtupleRule[]; readonly capacity: number } | null;
  /** The XDP program that is attached now. */
  readonly xdp: {
    readonly programId: number;
    readonly mode: string;
    readonly owner: ProgramOwner | null;
  } | null;
  readonly xdpFeatures: XdpFeatures | null;
  /** Queue leases: whether the kernel has them, and the interface's queues that are lent out. */
  readonly leases: { readonly kernel: boolean; readonly queues: readonly number[] };
  /** VLAN devices of this namespace that sit on the interface. */
  readonly vlans: readonly Link[];
  /** Devices below it (ports of a bridge or bond, the carrier of a VLAN). */
  readonly lower: readonly LowerDevice[];
  readonly addresses: readonly Address[];
  readonly routes: readonly Route[];
  readonly listeners: readonly Listener[];
  readonly sessions: readonly Session[];
  readonly otherSplits: readonly OtherSplit[];
  /** tc ingress; null where the process may not look. */
  readonly ingress: TcIngress | null;
  /** Six hex digits, for names in the kernel that no other split has. */
  readonly fresh: string;
  readonly capabilities: readonly string[];
  /** uname -r. */
  readonly kernel: string;
}

/** The interface of that name, E_NO_SUCH_INTERFACE with the names there are. */
export function findLink(links: readonly Link[], ifname: string): Link {
  const link = links.find((each) => each.name === ifname);
  if (link !== undefined) return link;
  const names = links.map((each) => each.name).join(", ");
  throw new BifurcateError("E_NO_SUCH_INTERFACE", {
    what: `look for the interface ${ifname}`,
    why: names === "" ? "the namespace has no interfaces" : `the namespace has ${names}`,
    data: { interface: ifname },
  });
}

function ingressOf(netns: Netns, link: Link): TcIngress | null {
  try {
    return netns.tcIngress(link.index);
  } catch (thrown) {
    // A dry run needs no rights, bpf(BPF_PROG_QUERY) does.
    if (errnoOf(thrown) === "EPERM") return null;
    throw thrown;
  }
}

/**
 * Reads all facts about an interface. Errors: E_NO_SUCH_INTERFACE; E_NOT_PRIVILEGED and E_SYSTEM where the
 * kernel refuses to tell.
 * @param ours The XDP program there is known to be the caller's own: who holds it is not looked for in all processes.
 */
export function readFacts(
  kernel: Kernel,
  netns: Netns,
  ifname: string,
  otherSplits: readonly OtherSplit[] = [],
  ours = false,
): Facts {
  const tell = <T>(what: string, read: () => T): T => {
    try {
      return read();
    } catch (thrown) {
      throw wrapError(thrown, `read ${what} of ${ifname}`);
    }
  };
  const links = tell("the links", () => netns.links());
  const link = findLink(links, ifname);
  const rules = tell("the ntuple rules", () => netns.ntupleRules(ifname));
  const sockets = tell("the sockets", () => netns.sockets());
  const addresses = tell("the addresses", () => netns.addresses());
  const over = new Set([link.index, ...uppers(links, link.index).map((upper) => upper.index)]);
  return {
    netns: { inode: netns.inode },
    link,
    driver: tell("the driver", () => driverOf(netns, link)),
    channels: tell("the channels", () => netns.channels(ifname)),
    rings: tell("the rings", () => netns.rings(ifname)),
    rss: tell("the RSS table", () => netns.rss(ifname)),
    features: tell("the features", () => netns.features(ifname)),
    ntuple:
      rules === null
        ? null
        : { rules, capacity: tell("the ntuple capacity", () => netns.ntupleCapacity(ifname)) },
    xdp:
      link.xdp === null
        ? null
        : {
            programId: link.xdp.programId,
            mode: link.xdp.mode,
            owner: ours ? null : programOwner(kernel, link.xdp.programId),
          },
    xdpFeatures: tell("the XDP features", () => netns.xdpFeatures(link.index)),
    leases: {
      kernel: tell("whether queues can be leased", () => netns.canLeaseQueues()),
      queues: tell("the queue leases", () => netns.queueLeases(link.index)).map((each) => each.queue),
    },
    vlans: links.filter((each) => each.kind === "vlan" && each.link === link.index),
    lower: lowers(links, link).map((lower) => ({
      link: lower,
      features: tell(`the features (${lower.name})`, () => netns.features(lower.name)),
    })),
    addresses: addresses.filter((each) => over.has(each.ifindex)),
    routes: tell("the routes", () => netns.routes()).filter((each) => over.has(each.ifindex)),
    listeners: listenersOf(sockets),
    sessions: sessionsOver(
      sockets,
      addresses.filter((each) => over.has(each.ifindex)).map((each) => each.address),
      inheritedVariable("SSH_CONNECTION"),
    ),
    otherSplits,
    ingress: tell("tc ingress", () => ingressOf(netns, link)),
    fresh: randomBytes(3).toString("hex"),
    capabilities: kernel.capabilities(),
    kernel: kernel.release(),
  };
}

/** The loopback interface and some virtual ones answer no `ethtool -i`: their kind has to do. */
function driverOf(netns: Netns, link: Link): DriverInfo {
  try {
    return netns.driver(link.name);
  } catch (thrown) {
    if (errnoOf(thrown) !== "EOPNOTSUPP") throw thrown;
    return {
      driver: link.kind ?? (link.loopback ? "loopback" : "unknown"),
      version: "",
      firmware: "",
      bus: "",
    };
  }
}

/** Who holds a program; null also where the process may not ask, which only a dry run comes to. */
function programOwner(kernel: Kernel, id: number): ProgramOwner | null {
  try {
    return kernel.programOwner(id);
  } catch (thrown) {
    if (errnoOf(thrown) === "EPERM") return null;
    throw wrapError(thrown, `read the owner of the XDP program ${id}`);
  }
}

/** Everything stacked on an interface: its master and VLANs, and theirs. */
export function uppers(links: readonly Link[], index: number, seen = new Set<number>()): Link[] {
  seen.add(index);
  const self = links.find((each) => each.index === index);
  const direct = links.filter(
    (each) =>
      !seen.has(each.index) &&
      (each.index === self?.master || (each.link === index && each.kind !== "veth" && each.kind !== null)),
  );
  return direct.flatMap((each) => [each, ...uppers(links, each.index, seen)]);
}

/** The ports of a bridge or bond, the carrier of a VLAN or macvlan. */
function lowers(links: readonly Link[], link: Link): Link[] {
  const stacked = link.kind !== null && link.kind !== "veth";
  return links.filter((each) => each.master === link.index || (stacked && each.index === link.link));
}

function listenersOf(sockets: readonly SocketFacts[]): Listener[] {
  const listening = sockets.filter(
    (each) => each.state === "listen" || (each.protocol === "udp" && each.remotePort === 0),
  );
  const holders = socketHolders(new Set(listening.map((each) => each.inode)));
  return listening.map((socket) => ({ socket, holder: holders.get(socket.inode) ?? null }));
}
