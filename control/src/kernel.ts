// What the control path asks of the kernel. The native addon is the real one; tests put a fake in its place.
import type { ObservedKernel, ObservedNetns } from "./observe/kernel.js";

/** An error of a system call: which call, with which arguments, and why the kernel refused it. */
export interface KernelError extends Error {
  /** The errno's name, e.g. "EBUSY". */
  readonly code: string;
  /** The call, e.g. "bind(AF_XDP)". */
  readonly call: string;
  /** The call's arguments in words, e.g. "dev=eth0 queue=3 flags=ZEROCOPY". */
  readonly args: string;
}

/** How an XDP program is attached. */
export type XdpMode = "driver" | "generic" | "hardware";

/** One network interface, as rtnetlink (RTM_GETLINK) tells it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  /** IFF_UP: administratively up. */
  readonly up: boolean;
  /** IFF_LOWER_UP: carrier present. */
  readonly carrier: boolean;
  /** ARPHRD type is Ethernet (1). */
  readonly ethernet: boolean;
  readonly loopback: boolean;
  /** IFLA_INFO_KIND ("veth", "bridge", "vlan", ...) or null for hardware. */
  readonly kind: string | null;
  /** IFLA_MASTER: the bridge or bond above it. */
  readonly master: number | null;
  /** IFLA_LINK: the lower device (of a VLAN) or the peer (of a veth). */
  readonly link: number | null;
  readonly vlanId: number | null;
  readonly rxQueues: number;
  readonly txQueues: number;
  readonly xdp: { readonly mode: XdpMode; readonly programId: number } | null;
}

export interface Address {
  readonly ifindex: number;
  readonly family: 4 | 6;
  readonly address: string;
  readonly prefix: number;
}

export interface Route {
  readonly ifindex: number;
  readonly family: 4 | 6;
  /** CIDR, or "default". */
  readonly destination: string;
  readonly gateway: string | null;
}

/** A TCP or UDP socket of the namespace, from sock_diag or /proc. */
export interface SocketFacts {
  readonly protocol: "tcp" | "udp";
  readonly family: 4 | 6;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly state: "listen" | "established" | "other";
  readonly inode: number;
}

export interface DriverInfo {
  readonly driver: string;
  readonly version: string;
  readonly firmware: string;
  readonly bus: string;
}

/** `ethtool -l`: numbers of queues. */
export interface Channels {
  readonly rx: number;
  readonly tx: number;
  readonly combined: number;
  readonly other: number;
}

/** `ethtool -x`. */
export interface Rss {
  readonly indirection: readonly number[];
  /** The hash key, in hex. */
  readonly key: string;
  readonly hashFunction: number;
  /** What is done to the hash's input first (RXH_XFRM_*): 0 nothing, 1 symmetric-xor. */
  readonly inputTransform?: number;
}

export interface Rings {
  readonly rx: number;
  readonly tx: number;
  readonly rxMax: number;
  readonly txMax: number;
}

/** `ethtool -k`, one feature. */
export interface Feature {
  readonly active: boolean;
  readonly requested: boolean;
  readonly available: boolean;
  readonly fixed: boolean;
}

/** NETDEV_CMD_DEV_GET of the netdev generic netlink family. */
export interface XdpFeatures {
  /** e.g. ["basic", "redirect", "ndo-xmit", "xsk-zerocopy", "rx-sg"]. */
  readonly features: readonly string[];
  readonly zeroCopyMaxSegments: number;
  /** e.g. ["timestamp", "hash", "vlan-tag"]. */
  readonly rxMetadata: readonly string[];
}

/** A receive queue of a card that is lent to a virtual interface (a queue lease). */
export interface QueueLease {
  readonly queue: number;
  /** The virtual interface's number, in its own namespace. */
  readonly ifindex: number;
  /** The virtual interface's queue that stands for it. */
  readonly leasedAs: number;
  /** The virtual interface is in another namespace. */
  readonly elsewhere: boolean;
}

/** A struct ethtool_rx_flow_spec: 168 bytes on 64-bit, host byte order as the header lays it out. */
export interface NtupleRule {
  readonly location: number;
  readonly bytes: Uint8Array;
}

/** What the kernel knows of a BPF program, and who holds it. */
export interface ProgramOwner {
  readonly id: number;
  readonly name: string;
  /** Processes that hold a descriptor of it (from /proc/PID/fdinfo). */
  readonly holders: readonly { readonly pid: number; readonly command: string }[];
}

/** What stands at tc ingress of an interface. */
export interface TcIngress {
  /** The kernel has tcx (6.6): what is attached there goes with its process. */
  readonly tcx: boolean;
  /** The interface has the clsact qdisc. */
  readonly clsact: boolean;
  /** The names of the BPF filters there. */
  readonly filters: readonly string[];
}

/** An open network namespace: every call below happens in it, and the calling thread returns to its own. */
export interface Netns extends ObservedNetns {
  /** The namespace file's inode, its identity. */
  readonly inode: number;
  links(): Link[];
  addresses(): Address[];
  routes(): Route[];
  sockets(): SocketFacts[];
  driver(ifname: string): DriverInfo;
  /** null where the driver has no such operation (EOPNOTSUPP). */
  channels(ifname: string): { readonly max: Channels; readonly now: Channels } | null;
  setChannels(ifname: string, channels: Channels): void;
  rings(ifname: string): Rings | null;
  rss(ifname: string): Rss | null;
  /** `null` resets to the driver's default (ETHTOOL_SRXFHINDIR with size 0). */
  setRss(ifname: string, indirection: readonly number[] | null): void;
  features(ifname: string): Record<string, Feature>;
  setFeature(ifname: string, feature: string, on: boolean): void;
  /** Rules in place, null where the card has none (EOPNOTSUPP). */
  ntupleRules(ifname: string): NtupleRule[] | null;
  /** Number of rules the card holds, 0 where it has none. */
  ntupleCapacity(ifname: string): number;
  insertNtupleRule(ifname: string, rule: NtupleRule): void;
  deleteNtupleRule(ifname: string, location: number): void;
  xdpFeatures(ifindex: number): XdpFeatures | null;
  /** Whether the kernel has queue leases (netdev family, queue-create; 7.1). */
  canLeaseQueues(): boolean;
  /** The interface's receive queues that are lent out; none on a kernel without leases. */
  queueLeases(ifindex: number): QueueLease[];
  /**
   * Makes a netkit device of that name without a peer, leases the card's `queues` to its queues 1, 2, ... in that
   * order, and brings it up; all of it or nothing.
   */
  leaseQueues(ifindex: number, queues: readonly number[], name: string): void;
  /**
   * Gives virtual function `number` of a card the address of the frames that it gets and a VLAN (0: none); `spoofCheck`:
   * the card drops what it sends from another address.
   */
  setVirtualFunction(
    ifindex: number,
    number: number,
    mac: readonly number[],
    vlan: number,
    spoofCheck: boolean,
  ): void;
  /** Deletes an interface; what was lent to it goes back. */
  deleteLink(ifindex: number): void;
  /** Attaches by bpf_link: it goes away with the returned object's close() or with the process. */
  attachXdp(program: Program, ifindex: number, mode: "driver" | "generic"): Attachment;
  /** By a tcx ingress bpf_link (kernel 6.6), or with `filter` by a clsact filter of that name, which outlives us. */
  attachTcIngress(program: Program, ifindex: number, filter?: string): Attachment;
  tcIngress(ifindex: number): TcIngress;
  /** Deletes the filters of that name, and with `qdisc` the clsact qdisc when it is idle then. */
  deleteTcIngress(ifindex: number, filter: string, qdisc: boolean): void;
  close(): void;
}

/** A thing in the kernel that close() (or the end of the process) takes away. */
export interface Attachment {
  /** True while the kernel still has it (a deleted device takes its links along). */
  attached(): boolean;
  close(): void;
}

export interface BpfMap {
  readonly id: number;
  update(key: Uint8Array, value: Uint8Array): void;
  delete(key: Uint8Array): void;
  lookup(key: Uint8Array): Uint8Array | null;
  close(): void;
}

export interface Program {
  readonly id: number;
  /** BPF_PROG_TEST_RUN on one frame. */
  testRun(frame: Uint8Array): { readonly verdict: number; readonly frame: Uint8Array };
  close(): void;
}

export interface ProgramSource {
  readonly type: "xdp" | "sched-cls" | "socket-filter";
  readonly name: string;
  /** Instructions of 8 bytes each, as bpf(2) takes them. */
  readonly instructions: Uint8Array;
  /** Which ld_imm64 instruction (by index) wants which map. */
  readonly maps: readonly { readonly instruction: number; readonly map: BpfMap }[];
  /** BPF_F_XDP_HAS_FRAGS. */
  readonly fragments?: boolean;
}

/** The kernel as the control path sees it. */
export interface Kernel extends ObservedKernel {
  /** A namespace by name (/run/netns/NAME), by path, or the process's own (null). */
  openNetns(name: string | null): Netns;
  createMap(options: {
    readonly type: "xskmap" | "array" | "percpu-array" | "hash" | "devmap";
    readonly name: string;
    readonly keySize: number;
    readonly valueSize: number;
    readonly maxEntries: number;
  }): BpfMap;
  loadProgram(source: ProgramSource): Program;
  /** null where no such program is loaded any more. */
  programOwner(id: number): ProgramOwner | null;
  /** Effective capabilities of the process by name, e.g. "CAP_NET_ADMIN". */
  capabilities(): string[];
  /** uname -r. */
  release(): string;
}
