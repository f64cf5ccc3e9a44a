// What the kernel lets one see of packets on their way: counters, rings of AF_XDP sockets, routing decisions.

/** The counters of an interface since it was made (struct rtnl_link_stats64), and how it receives. */
export interface LinkCounters {
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly rxErrors: number;
  /** Dropped by the driver or the stack. */
  readonly rxDropped: number;
  /** The card had no room for them. */
  readonly rxMissed: number;
  readonly rxNohandler: number;
  readonly txPackets: number;
  readonly txDropped: number;
  /** How many have asked for every packet; 0: the card takes its own addresses only. */
  readonly promiscuity: number;
  readonly carrierChanges: number;
}

/** What the kernel's routing does with a packet that arrives (RTN_* of rtnetlink(7)). */
export interface RouteDecision {
  readonly kind:
    | "unicast"
    | "local"
    | "broadcast"
    | "anycast"
    | "multicast"
    | "blackhole"
    | "unreachable"
    | "prohibit"
    | "other";
  readonly ifindex: number | null;
  readonly gateway: string | null;
}

/** What the kernel counted for an AF_XDP socket since it was made (struct xdp_statistics). */
export interface XskStatistics {
  /** Frames dropped since no frame was in the fill ring, or for being too long. */
  readonly rxDropped: number;
  readonly rxInvalidDescriptors: number;
  readonly txInvalidDescriptors: number;
  /** Frames dropped since nobody took earlier ones out of the receive ring. */
  readonly rxRingFull: number;
  /** How often the kernel found the fill ring empty. */
  readonly fillRingEmpty: number;
  readonly txRingEmpty: number;
}

/** Where a ring's two ends are, modulo 2^32. */
export interface XskRing {
  readonly producer: number;
  readonly consumer: number;
  /** The kernel sleeps until it is called. */
  readonly needWakeup: boolean;
}

/** A process that has an AF_XDP socket in use. */
export interface XskHolder {
  readonly pid: number;
  readonly command: string;
  /** It has the fill ring mapped. */
  readonly fills: boolean;
}

/** An AF_XDP socket on a queue; null where the kernel does not tell, or the caller may not look. */
export interface XskFacts {
  readonly inode: number;
  readonly queue: number;
  readonly holders: readonly XskHolder[];
  readonly zeroCopy: boolean | null;
  /** Sockets with the same number share their frame memory. Only from kernels with CONFIG_XDP_SOCKETS_DIAG. */
  readonly umem: { readonly id: number; readonly chunkSize: number; readonly headroom: number } | null;
  readonly rxEntries: number | null;
  readonly fillEntries: number | null;
  readonly statistics: XskStatistics | null;
  readonly rx: XskRing | null;
  readonly tx: XskRing | null;
  /** null too where it uses the rings of another socket on its queue. */
  readonly fill: XskRing | null;
  readonly completion: XskRing | null;
}

/** Kinds of flow that a card hashes by fields of their own. */
export type HashedFlow = "tcp4" | "udp4" | "sctp4" | "tcp6" | "udp6" | "sctp6" | "ip4" | "ip6";

/** What a namespace lets one see, besides its settings. */
export interface ObservedNetns {
  linkCounters(ifindex: number): LinkCounters;
  /** `ethtool -S`, in the driver's order; null where it has none. */
  driverCounters(ifname: string): { readonly name: string; readonly value: number }[] | null;
  /** RXH_* bits of what goes into the RSS hash; null where the driver does not tell. */
  hashFields(ifname: string, flow: HashedFlow): number | null;
  /** A packet that the kernel refuses (no route, a martian address) is a KernelError. */
  routeDecision(ifindex: number, source: string, destination: string): RouteDecision;
  /** The AF_XDP sockets on an interface, by queue. */
  xskSockets(ifindex: number, queues: number): XskFacts[];
  /** Runs a loaded XDP program once on a frame as if it had arrived there; no packet travels. */
  runXdp(programId: number, frame: Uint8Array, ifindex: number, queue: number): { readonly verdict: number };
  /** What the kernel's stack counted, e.g. "Udp.InDatagrams" (proc_net_snmp(5)). */
  stackCounters(): Record<string, number>;
}

/** What the kernel tells of BPF programs that others loaded. */
export interface ObservedKernel {
  /** Counts how often each program runs until it is closed; asks for CAP_SYS_ADMIN. */
  countRuns(): { close(): void };
  /** null where no such program is loaded any more. */
  programRuns(id: number): { readonly runs: number; readonly missed: number } | null;
}
