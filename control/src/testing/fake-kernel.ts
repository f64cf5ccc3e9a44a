// A small, faithful model of a card's settings behind the Kernel interface, for tests of decisions.
import type {
  Attachment,
  BpfMap,
  Channels,
  DriverInfo,
  Feature,
  Kernel,
  Link,
  Netns,
  NtupleRule,
  Program,
  ProgramOwner,
  Rss,
  SocketFacts,
  TcIngress,
  XdpFeatures,
} from "../kernel.js";
import type { HashedFlow, LinkCounters, RouteDecision, XskFacts } from "../observe/kernel.js";

/** What the kernel answers when it refuses. */
export class FakeRefusal extends Error {
  readonly code: string;
  readonly call: string;
  readonly args = "";

  constructor(call: string, code: string) {
    super(`${call}: ${code}`);
    this.code = code;
    this.call = call;
  }
}

/** A card's settings. `rssUser` is the kernel's IFF_RXFH_CONFIGURED: the table was set by a user. */
export interface FakeCard {
  link: Link;
  driver: DriverInfo;
  max: Channels;
  now: Channels;
  rss: number[] | null;
  rssUser: boolean;
  /** How the driver makes a table by itself: i mod n as the kernel does, or in blocks as igb does. */
  rssStyle: "interleaved" | "blocks";
  features: Record<string, Feature>;
  /** By location; null where the card has no ntuple rules. */
  rules: Map<number, Uint8Array> | null;
  capacity: number;
  xdpFeatures: XdpFeatures | null;
  /** Queues that are lent out, by queue the netkit device's name; null: the driver has no queue management. */
  leases?: Map<number, string> | null;
  /** tc ingress; a kernel with tcx and nothing there when left out. */
  ingress?: TcIngress;
  /** The hash's key in hex, and what goes into the hash; nothing told when left out. */
  rssKey?: string;
  hashFields?: Partial<Record<HashedFlow, number>>;
  /** AF_XDP sockets on it. */
  sockets?: XskFacts[];
  /** What it counted, and by its driver's own names. */
  counters?: Partial<LinkCounters>;
  driverCounters?: Record<string, number>;
}

const NO_COUNTERS: LinkCounters = {
  rxPackets: 0,
  rxBytes: 0,
  rxErrors: 0,
  rxDropped: 0,
  rxMissed: 0,
  rxNohandler: 0,
  txPackets: 0,
  txDropped: 0,
  promiscuity: 0,
  carrierChanges: 0,
};

/** An AF_XDP socket in good order on a queue: frames to fill, nothing unread, nothing lost. */
export function fakeSocket(change: Partial<XskFacts> = {}): XskFacts {
  const idle = { producer: 0, consumer: 0, needWakeup: false };
  return {
    inode: 4711,
    queue: 0,
    holders: [{ pid: 512, command: "fwd", fills: true }],
    zeroCopy: false,
    umem: null,
    rxEntries: 2048,
    fillEntries: 2048,
    statistics: {
      rxDropped: 0,
      rxInvalidDescriptors: 0,
      txInvalidDescriptors: 0,
      rxRingFull: 0,
      fillRingEmpty: 0,
      txRingEmpty: 0,
    },
    rx: idle,
    tx: idle,
    fill: { ...idle, producer: 2048 },
    completion: idle,
    ...change,
  };
}

const FLOW_SPEC = 168;
const RING_COOKIE = 152;

function total(channels: Channels): number {
  return channels.combined + channels.rx;
}

/** The driver's own table for n queues. */
export function driverTable(card: Pick<FakeCard, "rssStyle">, size: number, n: number): number[] {
  return Array.from({ length: size }, (_, i) =>
    card.rssStyle === "blocks" ? Math.floor((i * n) / size) : i % n,
  );
}

/** A card with `queues` queues of at most `max`, and everything that a good one has. */
export function fakeCard(change: Partial<FakeCard> = {}, queues = 4, max = 8): FakeCard {
  const on: Feature = { active: true, requested: true, available: true, fixed: false };
  return {
    link: fakeLink(),
    driver: { driver: "ice", version: "", firmware: "", bus: "0000:01:00.0" },
    max: { rx: 0, tx: 0, combined: max, other: 1 },
    now: { rx: 0, tx: 0, combined: queues, other: 1 },
    rss: Array.from({ length: 32 }, (_, i) => i % queues),
    rssUser: false,
    rssStyle: "interleaved",
    features: { "rx-vlan-hw-parse": on, "rx-ntuple-filter": on, "rx-lro": { ...on, active: false } },
    rules: new Map(),
    capacity: 16,
    leases: new Map(),
    xdpFeatures: {
      features: ["basic", "redirect", "ndo-xmit", "xsk-zerocopy"],
      zeroCopyMaxSegments: 1,
      rxMetadata: [],
    },
    ...change,
  };
}

/** An Ethernet link that is up. */
export function fakeLink(change: Partial<Link> = {}): Link {
  return {
    index: 2,
    name: "eth0",
    mac: "02:00:00:00:00:01",
    mtu: 1500,
    up: true,
    carrier: true,
    ethernet: true,
    loopback: false,
    kind: null,
    master: null,
    link: null,
    vlanId: null,
    rxQueues: 4,
    txQueues: 4,
    xdp: null,
    ...change,
  };
}

/** An ethtool_rx_flow_spec for tests: flow type, a port at the place where UDP over IPv4 has it, queue, location. */
export function fakeRule(flowType: number, port: number, queue: number, location: number): Uint8Array {
  const spec = Buffer.alloc(FLOW_SPEC);
  spec.writeUInt32LE(flowType, 0);
  spec.writeUInt16BE(port, 4 + 10);
  spec.writeUInt16BE(0xffff, 76 + 10);
  spec.writeBigUInt64LE(BigInt(queue), RING_COOKIE);
  spec.writeUInt32LE(location, 160);
  return Uint8Array.from(spec);
}

/** The kernel: cards by number in one namespace. `onChange` is called around every change of a setting. */
export class FakeKernel implements Kernel {
  readonly cards: FakeCard[];
  socketList: SocketFacts[] = [];
  addressList: { ifindex: number; family: 4 | 6; address: string; prefix: number }[] = [];
  owners = new Map<number, ProgramOwner>();
  capabilityList = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"];
  /** The kernel has queue leases. */
  leasing = true;
  /** What XDP programs make of a frame on a queue, and how often each ran, by number. */
  programs = new Map<number, { verdict: (frame: Uint8Array, queue: number) => number; runs: number }>();
  /** The routing decision; none: refused as unreachable. */
  route: (source: string, destination: string) => RouteDecision | null = () => null;
  /** What the kernel's stack counted. */
  stack: Record<string, number> = {};
  /** Called before and after each change; what it throws, the caller gets. */
  onChange: (when: "before" | "after", call: string) => void = () => undefined;
  readonly netns: Netns;

  constructor(cards: FakeCard[]) {
    this.cards = cards;
    this.netns = this.#netns();
  }

  openNetns(): Netns {
    return this.netns;
  }

  programOwner(id: number): ProgramOwner | null {
    return this.owners.get(id) ?? null;
  }

  capabilities(): string[] {
    return [...this.capabilityList];
  }

  release(): string {
    return "6.18.0";
  }

  countRuns(): { close(): void } {
    return { close: () => undefined };
  }

  programRuns(id: number): { runs: number; missed: number } | null {
    const program = this.programs.get(id);
    return program === undefined ? null : { runs: program.runs, missed: 0 };
  }

  createMap(): BpfMap {
    throw new FakeRefusal("bpf(MAP_CREATE)", "EPERM");
  }

  loadProgram(): Program {
    throw new FakeRefusal("bpf(PROG_LOAD)", "EPERM");
  }

  /** The netkit devices that queues are lent to. */
  get lessees(): Link[] {
    const names = new Set(this.cards.flatMap((card) => [...(card.leases?.values() ?? [])]));
    return [...names].map((name, i) => fakeLink({ index: 100 + i, name, kind: "netkit" }));
  }

  /** The card of that name; ENODEV as the kernel says it. */
  card(ifname: string): FakeCard {
    const card = this.cards.find((each) => each.link.name === ifname);
    if (card === undefined) throw new FakeRefusal(`ioctl(SIOCETHTOOL) dev=${ifname}`, "ENODEV");
    return card;
  }

  #netns(): Netns {
    const change = (call: string, make: () => void): void => {
      this.onChange("before", call);
      make();
      this.onChange("after", call);
    };
    const refuse = (): Attachment => {
      throw new FakeRefusal("bpf(LINK_CREATE)", "EPERM");
    };
    const byIndex = (index: number): FakeCard | undefined =>
      this.cards.find((card) => card.link.index === index);
    return {
      linkCounters: (index) => ({ ...NO_COUNTERS, ...byIndex(index)?.counters }),
      driverCounters: (name) => {
        const counters = this.card(name).driverCounters;
        if (counters === undefined) return null;
        return Object.entries(counters).map(([counter, value]) => ({ name: counter, value }));
      },
      hashFields: (name, flow) => this.card(name).hashFields?.[flow] ?? null,
      routeDecision: (_, source, destination) => {
        const decision = this.route(source, destination);
        if (decision === null) throw new FakeRefusal("netlink(RTM_GETROUTE)", "EHOSTUNREACH");
        return decision;
      },
      xskSockets: (index) => byIndex(index)?.sockets ?? [],
      runXdp: (id, frame, _, queue) => {
        const program = this.programs.get(id);
        if (program === undefined) throw new FakeRefusal("bpf(BPF_PROG_TEST_RUN)", "ENOENT");
        return { verdict: program.verdict(frame, queue) };
      },
      stackCounters: () => ({ ...this.stack }),
      inode: 4026531840,
      links: () => [...this.cards.map((card) => card.link), ...this.lessees],
      addresses: () => this.addressList,
      routes: () => [],
      sockets: () => this.socketList,
      driver: (name) => this.card(name).driver,
      channels: (name) => ({ max: this.card(name).max, now: this.card(name).now }),
      setChannels: (name, channels) =>
        change("setChannels", () => this.#setChannels(this.card(name), channels)),
      rings: () => null,
      rss: (name): Rss | null => {
        const { rss } = this.card(name);
        return rss === null
          ? null
          : { indirection: [...rss], key: this.card(name).rssKey ?? "", hashFunction: 1 };
      },
      setRss: (name, table) => change("setRss", () => this.#setRss(this.card(name), table)),
      features: (name) => ({ ...this.card(name).features }),
      setFeature: (name, feature, on) =>
        change(`setFeature ${feature}`, () => this.#setFeature(this.card(name), feature, on)),
      ntupleRules: (name): NtupleRule[] | null => {
        const { rules } = this.card(name);
        return rules === null ? null : [...rules].map(([location, bytes]) => ({ location, bytes }));
      },
      ntupleCapacity: (name) => this.card(name).capacity,
      insertNtupleRule: (name, rule) => change("insertRule", () => this.#insert(this.card(name), rule)),
      deleteNtupleRule: (name, location) =>
        change("deleteRule", () => {
          if (this.card(name).rules?.delete(location) !== true) throw new FakeRefusal("deleteRule", "ENOENT");
        }),
      xdpFeatures: (index) => this.cards.find((card) => card.link.index === index)?.xdpFeatures ?? null,
      canLeaseQueues: () => this.leasing,
      queueLeases: (index) => {
        const leases = this.cards.find((card) => card.link.index === index)?.leases;
        const lessee = (name: string): number => this.lessees.find((each) => each.name === name)?.index ?? 0;
        return [...(leases ?? [])].map(([queue, name]) => ({
          queue,
          ifindex: lessee(name),
          leasedAs: 1,
          elsewhere: false,
        }));
      },
      leaseQueues: (index, queues, name) => change("leaseQueues", () => this.#lease(index, queues, name)),
      deleteLink: (index) =>
        change("deleteLink", () => {
          const gone = this.lessees.find((each) => each.index === index);
          if (gone === undefined) throw new FakeRefusal("deleteLink", "ENODEV");
          for (const { leases } of this.cards) {
            for (const [queue, name] of leases ?? []) if (name === gone.name) leases?.delete(queue);
          }
        }),
      setVirtualFunction: refuse,
      attachXdp: refuse,
      attachTcIngress: refuse,
      tcIngress: (index) => {
        const ingress = this.cards.find((card) => card.link.index === index)?.ingress;
        return ingress ?? { tcx: true, clsact: false, filters: [] };
      },
      deleteTcIngress: (index, filter, qdisc) =>
        change("deleteTcIngress", () => {
          const card = this.cards.find((each) => each.link.index === index);
          if (card?.ingress === undefined) return;
          const filters = card.ingress.filters.filter((each) => each !== filter);
          card.ingress = {
            ...card.ingress,
            filters,
            clsact: card.ingress.clsact && !(qdisc && filters.length === 0),
          };
        }),
      close: () => undefined,
    };
  }

  /** net/ethtool/channels.c: no queue may go that a user's table or a rule points at. */
  #setChannels(card: FakeCard, channels: Channels): void {
    const n = total(channels);
    if (n < 1 || channels.combined > card.max.combined) throw new FakeRefusal("setChannels", "EINVAL");
    if (card.rssUser && card.rss?.some((queue) => queue >= n) === true) {
      throw new FakeRefusal("setChannels", "EINVAL");
    }
    for (const bytes of card.rules?.values() ?? []) {
      if (queueOf(bytes) >= n) throw new FakeRefusal("setChannels", "EINVAL");
    }
    card.now = { ...channels };
    if (card.rss !== null && !card.rssUser) card.rss = driverTable(card, card.rss.length, n);
  }

  /** net/ethtool/ioctl.c ethtool_set_rxfh_indir(): size 0 gives i mod n and forgets that a user set it. */
  #setRss(card: FakeCard, table: readonly number[] | null): void {
    const n = total(card.now);
    if (card.rss === null) throw new FakeRefusal("setRss", "EOPNOTSUPP");
    if (table === null) {
      card.rss = card.rss.map((_, i) => i % n);
      card.rssUser = false;
      return;
    }
    if (table.length !== card.rss.length || table.some((queue) => queue >= n)) {
      throw new FakeRefusal("setRss", "EINVAL");
    }
    card.rss = [...table];
    card.rssUser = true;
  }

  /** net/core/netdev-genl.c netdev_nl_queue_create_doit(). */
  #lease(index: number, queues: readonly number[], name: string): void {
    const card = this.cards.find((each) => each.link.index === index);
    if (card?.leases == null) throw new FakeRefusal("leaseQueues", "EINVAL");
    for (const queue of queues) {
      if (queue >= total(card.now)) throw new FakeRefusal("leaseQueues", "ERANGE");
      if (card.leases.has(queue)) throw new FakeRefusal("leaseQueues", "EBUSY");
    }
    for (const queue of queues) card.leases.set(queue, name);
  }

  #setFeature(card: FakeCard, name: string, on: boolean): void {
    const feature = card.features[name];
    if (feature === undefined || feature.fixed) throw new FakeRefusal(`setFeature ${name}`, "EINVAL");
    card.features = { ...card.features, [name]: { ...feature, active: on, requested: on } };
    if (name === "rx-ntuple-filter" && !on) card.rules?.clear();
  }

  #insert(card: FakeCard, rule: NtupleRule): void {
    if (card.rules === null || card.features["rx-ntuple-filter"]?.active === false) {
      throw new FakeRefusal("insertRule", "EOPNOTSUPP");
    }
    if (queueOf(rule.bytes) >= total(card.now)) throw new FakeRefusal("insertRule", "EINVAL");
    if (!card.rules.has(rule.location) && card.rules.size >= card.capacity) {
      throw new FakeRefusal("insertRule", "ENOSPC");
    }
    // Drivers keep what the masks look at; the rest comes back as it likes.
    const kept = Uint8Array.from(rule.bytes);
    for (let i = 0; i < 72; i++) if (kept[76 + i] === 0) kept[4 + i] = 0;
    card.rules.set(rule.location, kept);
  }
}

function queueOf(rule: Uint8Array): number {
  return Number(Buffer.from(rule).readBigUInt64LE(RING_COOKIE));
}
