// Generated from addon/src by `node addon/build.mjs`: do not edit.

/** An address of an interface. */
export interface Address {
  ifindex: number
  family: 4 | 6
  address: string
  prefix: number
}

/** What openAfPacket is asked for. */
export interface AfPacketOptions {
  /** The interface's name. */
  ifname: string
  /** Number of queues: members of the fanout group. */
  queues: number
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Frames of 68 KiB for packets longer than a frame. */
  jumboFrames: number
  /** Have the kernel work out each frame's flow hash. */
  hash: boolean
  /** "auto", "huge" or "ordinary". */
  pages: string
  /** A pcapng file to write every received and sent frame to. */
  tap?: string
  /** Add to that file what a port before this one has begun. */
  tapAppend?: boolean
  /** Show every received and sent frame to tcpdump, on an interface made for that. */
  show?: boolean
}

/** What openAfXdp is asked for. */
export interface AfXdpOptions {
  /** The interface's name. */
  ifname: string
  /** The queues to bind a socket to. */
  queues: Array<number>
  /**
   * How many of the card's queues send: the kernel drops what is sent by a socket of a queue from this number on
   * (net/xdp/xsk.c __xsk_generic_xmit()), so those send by the queues before it. All when left out.
   */
  senders?: number
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Frames of 68 KiB for packets longer than a frame; with any, multi-buffer is asked for. */
  jumboFrames: number
  /** "require", "prefer" or "off". */
  zeroCopy: string
  /** Where the XDP program runs: "driver" or "generic". */
  mode: string
  /** Never sleep: the handler's turns drive the device. */
  busyPoll: boolean
  /** The XDP program leaves what the driver says of a frame in front of it. */
  metadata: boolean
  /** "auto", "huge" or "ordinary". */
  pages: string
  /** A pcapng file to write every received and sent frame to. */
  tap?: string
  /** Add to that file what a port before this one has begun. */
  tapAppend?: boolean
  /** Show every received and sent frame to tcpdump, on an interface made for that. */
  show?: boolean
  /** Entries of each ring, a power of two. */
  ringSize: number
}

/** An attached program: close(), or the end of the process, detaches it. */
export declare class Attachment {
  /** True while the kernel still has it: a deleted interface takes its attachments along. */
  attached(): boolean
  /** Puts another program in the place of the one that runs, at once. */
  update(program: Program): void
  /** Names the link in a BPF file system: it then outlives the process, until the name is removed. */
  pin(path: string): void
  /** Detaches, unless it is pinned. */
  close(): void
}

/** A BPF map. */
export declare class BpfMap {
  /** The map's number in the kernel. */
  get id(): number
  /** Sets the element of `key`. */
  update(key: Uint8Array, value: Uint8Array): void
  /** Removes the element of `key`. */
  delete(key: Uint8Array): void
  /** The element of `key`, or null. */
  lookup(key: Uint8Array): Uint8Array | null
  /** Names the map in a BPF file system: it then outlives the process, until the name is removed. */
  pin(path: string): void
  /** Another descriptor of the map, to be passed. */
  descriptor(): Descriptor
  /** Gives the descriptor back; the map stays while a program uses it. */
  close(): void
}

/** Which call instruction calls which function of the kernel. */
export interface CallReference {
  /** The number of the instruction, in units of 8 bytes. */
  instruction: number
  /** The function's name, e.g. "bpf_xdp_metadata_rx_hash". */
  name: string
}

/** A card that our own driver has. */
export interface CardFacts {
  /** The driver: "igb", "igbvf", "e1000e" or "virtio". */
  driver: string
  /** Its address. */
  mac: string
  /** Its link. */
  link: CardLink
  /** What it has counted. */
  statistics: Array<CardStatistic>
  /** "here", "down" or "gone". */
  presence: string
}

/** What a card can steer to a queue by itself: an EtherType, or a five-tuple of IPv4. */
export interface CardFilter {
  /** Frames of this EtherType. */
  etherType?: number
  /** Or packets of this protocol: TCP 6, UDP 17. */
  protocol?: number
  /** From this address. */
  source?: string
  /** To this address. */
  destination?: string
  /** From this port. */
  sourcePort?: number
  /** To this port. */
  destinationPort?: number
  /** The queue that they go to. */
  queue: number
}

/** The state of a card's link. */
export interface CardLink {
  /** There is one. */
  up: boolean
  /** Megabits a second; 0 when the card does not say. */
  speed: number
  /** Both directions at once. */
  fullDuplex: boolean
}

/** Power over what a lent card reaches. Closed, it leaves the card as it is. */
export declare class CardLoan {
  /** Takes the memory from the card: from now on the IOMMU stops whatever it tries to reach. */
  revoke(): void
  /** Gives the power back. */
  close(): void
}

/** A statistics register of a card, added up since it was opened. */
export interface CardStatistic {
  /** What the datasheet calls it. Registers that there are for each queue come in the queues' order. */
  name: string
  /** What it counts. */
  meaning: string
  /** How much. */
  value: number
}

/** Numbers of queues. */
export interface Channels {
  rx: number
  tx: number
  combined: number
  other: number
}

/** The queues a card can have, and has. */
export interface ChannelsFacts {
  max: Channels
  now: Channels
}

/** One connection. */
export declare class Connection {
  /** Who is at the other end. */
  peer(): Peer
  /**
   * The network namespace in which the other end made its socket, at the end that accepted. Asks for CAP_NET_ADMIN
   * over that namespace.
   */
  netns(): Netns
  /** Sends one message, whole or not at all; false when the peer has not read what was sent before. */
  send(bytes: Uint8Array, descriptors: readonly Descriptor[]): boolean
  /** Takes one message of at most `longest` bytes; null when none is there. */
  receive(longest: number): Message | null
  /** Calls `ready` once, when there is something to receive. With `weak` the process may end meanwhile. */
  onReady(ready: () => void, weak: boolean): void
  /** Closes it, with what has not been received of it. */
  close(): void
}

/** How a port's vhost-user connection is. */
export interface Connection {
  /** Somebody is at the other end. */
  connected: boolean
  /** Connections so far. */
  connections: number
  /** Names of the virtio features that were negotiated last. */
  features: Array<string>
  /** Why the last connection ended, when it was not by the other end's close. */
  error?: string
  /** There will be no other connection. */
  over: boolean
}

/** Counters since the port was opened. */
export interface Counters {
  /** Frames that arrived. */
  received: number
  /** Their bytes. */
  receivedBytes: number
  /** Frames that the device took for sending. */
  sent: number
  /** Their bytes. */
  sentBytes: number
  /** Frames that a verdict dropped. */
  dropped: number
  /** Frames given to the kernel. */
  passed: number
  /** Times that no free frame was there to receive into or to copy to. */
  noFrames: number
  /** Frames that found a ring full. */
  ringFull: number
  /** Descriptors that a device or peer cannot have meant: dropped. */
  invalidDescriptor: number
  /** Frames longer than the device or the pool can hold: dropped. */
  tooLong: number
  /** Verdicts, lengths or ports of a handler that cannot be: dropped. */
  handlerInvalid: number
  /** Frames that a handler keeps now. */
  kept: number
  /** Frames that the device gave back with an error. */
  deviceError: number
  /** Frames that a capture file or tcpdump's interface had no room for. */
  tapLost: number
}

/** An open descriptor, to be passed to another process or to be opened as what it is. */
export declare class Descriptor {
  /** Its number in this process; valid until it is closed or taken. */
  get number(): number
  /** Closes it. */
  close(): void
}

/** One of a driver's own counters. */
export interface DriverCounter {
  name: string
  value: number
}

/** `ethtool -i`. */
export interface DriverInfo {
  driver: string
  version: string
  firmware: string
  bus: string
}

/** `ethtool -k`, one feature. */
export interface Feature {
  active: boolean
  requested: boolean
  available: boolean
  fixed: boolean
}

/** The lock on a file. It is held until it is closed or the process ends, also when the object is forgotten. */
export declare class FileLock {
  /** Gives the lock back. */
  close(): void
}

/** The memory of a card that was lent, as its lender keeps it. */
export declare class KeptMemory {
  /**
   * Gives its pages back to the kernel, whoever keeps the file: who touches it again gets new ones. For after the card
   * is free.
   */
  discard(): void
  /** Closes it; the memory is whoever's who has it. */
  close(): void
}

/** What openLease is told of the descriptors: the broker's words. */
export interface LeaseOptions {
  /** The card's name: what the port is called. */
  name: string
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Frames of 68 KiB for packets longer than a frame. */
  jumboFrames: number
  /** Entries of each ring. */
  ringSize: number
  /** Chunks in each fill ring. */
  filled: number
  /** The sockets have tx rings. */
  transmit: boolean
  /** The card writes into the pool itself. */
  zeroCopy: boolean
  /** Frames longer than a chunk arrive. */
  multiBuffer: boolean
  /** The kernel says when it wants to be woken. */
  needWakeup: boolean
  /** Busy polling is on. */
  busyPoll: boolean
  /** The senders behind the card leave work to it: checksums, segmentation. */
  leftToCard: boolean
  /** The port's MTU, in bytes. */
  mtu: number
  /** A pcapng file to write every received and sent frame to. */
  tap?: string
}

/** Sockets and pool of a lease, to be passed. */
export interface LeaseSockets {
  /** One bound AF_XDP socket a queue. */
  sockets: Array<Descriptor>
  /** The pool's memory file. */
  memory: Descriptor
  /** Chunks in each fill ring. */
  filled: number
  /** What the kernel gave. */
  obtained: Obtained
}

/** A TAP whose queues are to be passed. */
export interface LeaseTap {
  /** Its number. */
  ifindex: number
  /** Its queues. */
  queues: Array<Descriptor>
}

/** A card that is lent: what is passed, and what is kept. */
export interface LentCard {
  /** The card's VFIO descriptor, to be passed. */
  device: Descriptor
  /** The memory file of frames and rings, to be passed. */
  memory: Descriptor
  /** "huge" or "ordinary". */
  pages: string
  /** The I/O address of the memory's first byte. */
  iova: number
  /** Where in it the rings begin. */
  ringsAt: number
  /** What the lender keeps. */
  loan: CardLoan
  /** The memory file, which the lender keeps too. */
  kept: KeptMemory
}

/** What openLentCard is told of the descriptors: the broker's words. */
export interface LentCardOptions {
  /** The I/O address of the memory's first byte. */
  iova: number
  /** Where in it the rings begin. */
  ringsAt: number
  /** Bytes of the rings. */
  ringBytes: number
}

/** One network interface. */
export interface Link {
  index: number
  name: string
  mac: string
  mtu: number
  up: boolean
  carrier: boolean
  ethernet: boolean
  loopback: boolean
  kind: string | null
  master: number | null
  link: number | null
  vlanId: number | null
  rxQueues: number
  txQueues: number
  xdp: LinkXdp | null
}

/** What to change of an interface; what is left out stays. */
export interface LinkChange {
  /** Administratively up or down. */
  up?: boolean
  /** Bytes. */
  mtu?: number
  /** Ethernet address, six bytes. */
  mac?: Array<number>
}

/** The counters of an interface, and how it receives. */
export interface LinkCounters {
  rxPackets: number
  rxBytes: number
  rxErrors: number
  rxDropped: number
  rxMissed: number
  rxNohandler: number
  txPackets: number
  txDropped: number
  promiscuity: number
  carrierChanges: number
}

/** Something that happened to an interface. */
export interface LinkEvent {
  /** What happened. */
  type: "added" | "up" | "down" | "deleted" | "moved" | "renamed" | "mtu" | "address" | "failed"
  /** The interface's number. */
  ifindex: number
  /** Its name, after the event; empty of "failed". */
  name: string
  /** Of "renamed" the name before. */
  oldName: string | null
  /** Of "mtu" the new MTU, in bytes. */
  mtu: number | null
  /** Of "failed" why no more events will come. */
  reason: string | null
}

/** A subscription to the link events of a namespace. It does not keep the process alive. */
export declare class LinkWatch {
  /** Ends the subscription. */
  close(): void
}

/** The XDP program of an interface. */
export interface LinkXdp {
  mode: "driver" | "generic" | "hardware"
  programId: number
}

/** Waits for connections. */
export declare class Listener {
  /** The next connection that waits, or null. */
  accept(): Connection | null
  /** Calls `ready` once, when a connection waits. */
  onReady(ready: () => void): void
  /** Listens no more. */
  close(): void
}

/** What openLoopback is asked for. */
export interface LoopbackOptions {
  /** Number of queues. */
  queues: number
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Bytes of each packet that it makes. */
  length: number
  /** "hot": the frame freed last comes next; "cold": a walk through the pool. */
  order: string
}

/** What `createMap` makes. */
export interface MapOptions {
  /** The kind of map. */
  type: "xskmap" | "array" | "percpu-array" | "hash" | "devmap"
  /** At most 15 bytes count. */
  name: string
  /** Bytes. */
  keySize: number
  /** Bytes. */
  valueSize: number
  /** How many elements it holds at most. */
  maxEntries: number
}

/** Which instruction wants which map. */
export interface MapReference {
  /** The number of an ld_imm64 instruction, in units of eight bytes. */
  instruction: number
  /** The map. */
  map: BpfMap
}

/** What `receive` found. */
export interface Message {
  /** The message; none at the end of the connection. */
  bytes?: Uint8Array
  /** Its descriptors. */
  descriptors: Array<Descriptor>
  /** It, or its list of descriptors, was too long: the rest is lost. */
  cut: boolean
}

/** The kernel of this machine. */
export declare class NativeKernel {
  /**
   * Opens a card that is bound to vfio-pci, to be passed, with new memory for `poolBytes` bytes of frames and
   * `ringBytes` of rings behind the IOMMU. `pages`: "auto", "huge" or "ordinary". On a thread of its own, as is the close
   * of the card: the kernel may take a lock for it that another process has, and resets the card.
   */
  lendCard(address: string, poolBytes: number, ringBytes: number, pages: string): Promise<LentCard>
  /**
   * Whether a descriptor of the card is open somewhere, as its IOMMU group tells: tried, by opening that, which waits for
   * no holder. Null where it tells nothing.
   */
  isCardHeld(address: string): boolean | null
  /**
   * The same, by the card's own file where its group tells nothing. On a thread of its own: the kernel may take a lock for
   * it that a holder has, and resets a card that is free.
   */
  lookAtCard(address: string): Promise<boolean>
  /** Makes the kernel count how often each BPF program runs, until the result is closed. */
  countRuns(): RunCounting
  /** How often a program ran while that was counted; null when it is not loaded any more. */
  programRuns(id: number): ProgramRuns | null
  /** The kernel of this machine; asks it nothing yet. */
  constructor()
  /** A namespace by name (/run/netns/NAME), by path, or the calling thread's own (null). */
  openNetns(name?: string | null): Netns
  /** Creates a BPF map. */
  createMap(options: MapOptions): BpfMap
  /** Loads a BPF program; a refusal's `args` ends with the verifier's reasons. */
  loadProgram(source: ProgramSource): Program
  /** The map that was pinned as `path`. */
  pinnedMap(path: string): BpfMap
  /** A name in a BPF file system itself (O_PATH), to be passed: by it another process opens what it may. */
  openName(path: string): Descriptor
  /** The link that was pinned as `path`: closing the object leaves it attached while the name is there. */
  pinnedLink(path: string): Attachment
  /** null where no such program is loaded any more. */
  programOwner(id: number): ProgramOwner | null
  /** Effective capabilities of the calling thread by name, e.g. "CAP_NET_ADMIN". */
  capabilities(): Array<string>
  /** Whether the senders behind a card of that driver leave checksums and segmentation to it that it never does. */
  isVirtualDriver(driver: string): boolean
  /** uname -r. */
  release(): string
}

/** An open port: its queues and its frame pool. */
export declare class NativePort {
  /** The card behind the port; null for devices that are none of our own drivers', and after the close. */
  card(): CardFacts | null
  /**
   * What the IOMMU stopped of the card since this was last asked, as the kernel's log says it: a card that reached for
   * memory it was not given. null where nothing was, or where nobody looks.
   */
  dmaFault(): string | null
  /**
   * Makes a TAP of that name with the card's address: frames with the verdict pass arrive there, and what the kernel
   * sends there leaves by the card. In this process's own network namespace; gone with the port. Gives its index.
   */
  enableException(name: string, mtu: number): number
  /**
   * Lets the card steer what the filter says; gives its number. Throws EOPNOTSUPP where the card cannot, ENOSPC when
   * it has no filter left.
   */
  addFilter(filter: CardFilter): number
  /** Removes a filter of the card. */
  removeFilter(number: number): void
  /** By which any thread of the process finds the port. */
  get id(): number
  /** Number of queues. */
  get queues(): number
  /** What the device really gave. */
  get obtained(): Obtained
  /** How its vhost-user connection is now; null for a port that is over none. */
  get connection(): Connection | null
  /** The AF_XDP sockets, in the order of the queues; none for other devices. */
  sockets(): Array<SocketOfQueue>
  /** "up", "down" or "gone": the device, asked of the kernel now. Devices without sockets are up. */
  state(): string
  /** The counters now. Cheap, and right at any time, from any thread. */
  stats(): PortCounters
  /** Opens the way back into the kernel for frames with the verdict pass, through the device the port is on. */
  enablePass(generic: boolean): PassOpened
  /**
   * To be called when the card's address or MTU has changed: the way back into the kernel takes both. Nothing
   * without such a way, and where the card is gone.
   */
  followCard(): void
  /**
   * Runs a handler in Rust on every queue, in threads of its own, until the port is stopped. The promise
   * resolves when every thread has ended.
   */
  runNative(options: NativeRunOptions, to?: NativePort | undefined | null): Promise<void>
  /**
   * Asks every loop and handler for its queue, and waits at most `grace_ms` until all have been given back.
   * Resolves with the places of those that have not.
   */
  stop(graceMs: number): Promise<number[]>
  /**
   * Stops, closes the device and puts zero pages in the place of the pool. Resolves with the places of the
   * queues that were not given back in time; with any, the port stays as it is.
   */
  close(graceMs: number): Promise<number[]>
  /** How its queue pairs are; null for a port that has none. */
  get rdma(): RdmaFacts | null
  /**
   * Datagrams of that end are taken from now on, and of no other; beginRdma sends to it. Takes up to some seconds,
   * while the kernel looks for the way.
   */
  connectRdma(to: RdmaAddress): Promise<void>
  /** What is sent goes to the end that was named last: it takes our datagrams by now. */
  beginRdma(): void
  /** Nobody is at the other end any more: what is sent is dropped, and counted as ringFull. */
  disconnectRdma(): void
}

/** One queue of a port. It belongs to the thread that took it. */
export declare class NativeQueue {
  /**
   * The frame pool, as an ArrayBuffer over the pool itself. Throws E_EXTERNAL_BUFFERS where the runtime forbids
   * that; there is no copy to fall back to.
   */
  pool(): ArrayBuffer
  /** The shared block, as 32-bit words in the machine's order: see datapath/src/engine/remote/block.rs. */
  block(): ArrayBuffer
  /**
   * A function that does what the block says of the last batch, receives the next one and gives the number of
   * its frames; -1 when the queue is asked back. A plain function, since a method costs 300 ns a call more.
   */
  get turn(): () => number
  /** Whether its loop is never to sleep. */
  get busyPoll(): boolean
  /**
   * Blocks the thread until there may be frames: 1; nothing for `timeout_ms`: 0; the queue is asked back: -1.
   * While many frames arrive it looks away for a moment instead, so that they are taken together: 1 as well.
   */
  wait(timeoutMs: number): number
  /**
   * Calls `ready` once, from the event loop, when there may be frames or the queue is asked back. False when
   * there is nothing to wait for: the next turn may always find frames.
   */
  onReady(ready: () => void): boolean
  /** Frames that the handler keeps. */
  kept(): number
  /** Whether the pool ran out of free frames since the last call. */
  starved(): boolean
  /**
   * Does what the block says of the last batch and gives the queue back to its port. Kept frames go back to the
   * pool. A second call does nothing.
   */
  release(): void
}

/** How to run a handler in Rust. */
export interface NativeRunOptions {
  /** "drop", "count", "reflect" (swap MACs, send back) or "forward". */
  do: string
  /** The cores to bind threads to; none: a thread a queue, not bound. */
  cores?: Array<number>
}

/** An open network namespace. */
export declare class Netns {
  /** Makes a veth pair whose ends make themselves no IPv6 address; both are down. */
  createVeth(name: string, peer: string, queues: number): Array<number>
  /** Changes an interface. */
  setLink(ifindex: number, change: LinkChange): void
  /** Moves an interface to another namespace, which takes it down. Asks for CAP_NET_ADMIN over both. */
  moveLink(ifindex: number, to: Netns): void
  /** Makes a pool and AF_XDP sockets over it, bound to the queues, to be passed. Without `transmit` they can never send. */
  createLeaseSockets(options: AfXdpOptions, transmit: boolean): LeaseSockets
  /**
   * Whether an AF_XDP socket is bound to that queue now: tried, by binding one. Who has it is not waited for; null when
   * nobody has it any more, and the kernel has not let go of it within `patience_ms`.
   */
  isQueueHeld(ifname: string, queue: number, patienceMs: number): boolean | null
  /** Makes a TAP, down, whose ends are to be passed: what is written there arrives on it. */
  createTap(name: string, queues: number): LeaseTap
  /** The namespace file's inode, its identity. */
  get inode(): number
  /** Who made the user namespace that it belongs to, and so has every right over it. */
  get owner(): number
  /** Every interface. */
  links(): Array<Link>
  /** Every address. */
  addresses(): Array<Address>
  /** Every unicast route, of all tables. */
  routes(): Array<Route>
  /** Every TCP and UDP socket. */
  sockets(): Array<SocketFacts>
  /** The driver of an interface. */
  driver(ifname: string): DriverInfo
  /** Mbit/s; null where the driver does not tell, or there is no link. */
  speed(ifname: string): number | null
  /** null where the driver has no such operation (EOPNOTSUPP). */
  channels(ifname: string): ChannelsFacts | null
  /** `ethtool -L`. */
  setChannels(ifname: string, channels: Channels): void
  /** `ethtool -g`; null where the driver has no such operation. */
  rings(ifname: string): Rings | null
  /** `ethtool -x`; null where the driver has no such operation. */
  rss(ifname: string): Rss | null
  /** Sets the indirection table; null resets to the driver's default. */
  setRss(ifname: string, indirection?: readonly number[] | null): void
  /** `ethtool -k`. */
  features(ifname: string): Record<string, Feature>
  /** `ethtool -K`. */
  setFeature(ifname: string, feature: string, on: boolean): void
  /** Rules in place, null where the card has none (EOPNOTSUPP). */
  ntupleRules(ifname: string): Array<NtupleRule> | null
  /** Number of rules the card holds, 0 where it has none. */
  ntupleCapacity(ifname: string): number
  /** Puts a rule into the card; gives the location where it is. */
  insertNtupleRule(ifname: string, rule: NtupleRule): number
  /** Takes a rule out of the card. */
  deleteNtupleRule(ifname: string, location: number): void
  /** What XDP an interface can, null where the kernel does not tell (before 6.3). */
  xdpFeatures(ifindex: number): XdpFeatures | null
  /** Whether the kernel has queue leases (7.1). */
  canLeaseQueues(): boolean
  /** The receive queues of an interface that are lent out. */
  queueLeases(ifindex: number): Array<QueueLease>
  /**
   * Makes a netkit device without a peer, and leases `queues` of card `ifindex` to its queues 1, 2, ... in that
   * order; up when it returns. Where a queue is refused, the device is deleted again.
   */
  leaseQueues(ifindex: number, queues: readonly number[], name: string): void
  /** Deletes an interface; what was lent to it goes back. */
  deleteLink(ifindex: number): void
  /**
   * Loads an XDP program that is bound to one interface, and may therefore call the driver's functions (kernel
   * 6.3). It can be attached to that interface alone, in driver mode.
   */
  loadBoundProgram(source: ProgramSource, ifindex: number, calls: readonly CallReference[]): Program
  /**
   * Attaches an XDP program by bpf_link: it goes away with the returned object's close() or with the
   * process.
   */
  attachXdp(program: Program, ifindex: number, mode: "driver" | "generic"): Attachment
  /**
   * Attaches a program at tc ingress by a tcx link, or with `filter` by a clsact filter of that name, which
   * outlives the process: for kernels without tcx.
   */
  attachTcIngress(program: Program, ifindex: number, filter?: string | undefined | null): Attachment
  /** What stands at tc ingress of an interface. */
  tcIngress(ifindex: number): TcIngress
  /** Deletes the clsact filters of that name at tc ingress, and with `qdisc` the clsact qdisc when it is idle then. */
  deleteTcIngress(ifindex: number, filter: string, qdisc: boolean): void
  /**
   * The addresses and routes of an interface, as the kernel tells them: what restoreStanding puts back. Routes that
   * come by themselves are left out.
   */
  saveStanding(ifindex: number): Array<Uint8Array>
  /**
   * Puts what saveStanding gave of the interface that had the number `before` on interface `now`; gives what the
   * kernel refused, in words.
   */
  restoreStanding(saved: Array<Uint8Array>, before: number, now: number): Array<string>
  /** Gives an interface another name; one that is up is taken down for it, and up again. */
  renameLink(ifindex: number, name: string): void
  /**
   * Sets virtual function `number` of a card: the address whose frames it gets, the VLAN that it is in (0: none), and
   * whether the card drops what it sends from another address. Throws EOPNOTSUPP, EINVAL, EPERM.
   */
  setVirtualFunction(ifindex: number, number: number, mac: Array<number>, vlan: number, spoofCheck: boolean): void
  /** Gives the namespace's descriptor back. */
  close(): void
  /** The counters of an interface, and how it receives. */
  linkCounters(ifindex: number): LinkCounters
  /** `ethtool -S`; null where the driver has no counters of its own. */
  driverCounters(ifname: string): Array<DriverCounter> | null
  /** The RXH_* bits of what goes into the RSS hash; null where the driver does not tell. */
  hashFields(ifname: string, flow: "tcp4" | "udp4" | "sctp4" | "tcp6" | "udp6" | "sctp6" | "ip4" | "ip6"): number | null
  /** What the kernel's routing does with a packet that arrives; a packet that it refuses is an error. */
  routeDecision(ifindex: number, source: string, destination: string): RouteDecision
  /** The AF_XDP sockets on an interface of `queues` receive queues. */
  xskSockets(ifindex: number, queues: number): Array<XskFacts>
  /** Runs a loaded XDP program once on a frame as if it had arrived there; no packet travels. */
  runXdp(programId: number, frame: Uint8Array, ifindex: number, queue: number): TestRun
  /** What the kernel's stack counted, e.g. "Udp.InDatagrams". */
  stackCounters(): Record<string, number>
  /** Calls `told` for everything that happens to an interface from now on. */
  watchLinks(told: (event: LinkEvent) => void): LinkWatch
}

/** A struct ethtool_rx_flow_spec and where it is. */
export interface NtupleRule {
  location: number
  bytes: Uint8Array
}

/** What a device really gave. */
export interface Obtained {
  /** The device writes into the pool itself (read back with XDP_OPTIONS). */
  zeroCopy: boolean
  /** The kernel says when it wants to be woken. */
  needWakeup: boolean
  /** Packets longer than a frame arrive, and can be sent. */
  multiBuffer: boolean
  /** Busy polling is on. */
  busyPoll: boolean
  /** What the pool stands in: "huge" or "ordinary" pages. */
  pages: string
  /** Why a better way was refused, for each that was tried. */
  refused: Array<string>
  /** The interface on which tcpdump sees the frames, where that was asked for and could be had. */
  tap?: string
}

/** What `skb->tc_index` holds in a passed frame: the filters of packet sockets and of tc let such a frame be. */
export declare const PASS_MARK: number;

/** How passed frames get back into the kernel. */
export interface PassOpened {
  /** The TAP that carries them; null with live frames. */
  tap?: string
  /** Why there is no TAP, when there is none. */
  reason?: string
}

/** A PCI function as sysfs shows it. */
export interface PciFunction {
  /** Where it sits, as 0000:01:10.0. */
  address: string
  /** Vendor id. */
  vendor: number
  /** Device id. */
  device: number
  /** Class, subclass and interface: 0x020000 is an Ethernet controller. */
  class: number
  /** The kernel driver that has it; null when none has. */
  driver?: string
  /** The only driver that may have it (driver_override); null when any may. */
  driverOverride?: string
  /** Its IOMMU group; null without an IOMMU. */
  iommuGroup?: number
  /** Every function of that group, itself included. */
  groupMembers: Array<PciGroupMember>
  /** The network interfaces that its driver made. */
  interfaces: Array<string>
  /** Most virtual functions it can have; 0 without SR-IOV. */
  sriovTotal: number
  /** The virtual functions it has now. */
  virtualFunctions: Array<string>
  /** The physical function that it is a virtual function of; null when it is none. */
  physicalFunction?: string
  /** The driver here that drives such a card; null when none does. */
  supported?: string
}

/** Another function of an IOMMU group. */
export interface PciGroupMember {
  /** Where it sits. */
  address: string
  /** The kernel driver that has it; null when none has. */
  driver?: string
}

/** A function that nobody else can bind or open meanwhile. */
export declare class PciLock {
  /** Lets others have it. The end of the process does so too. */
  close(): void
}

/** What openPci is asked for. */
export interface PciOptions {
  /** Where the card sits, as 0000:01:10.0. */
  address: string
  /** "vfio", "iommufd", "vfio-noiommu", "uio_pci_generic" or "igb_uio"; the card is bound to its driver already. */
  via: string
  /** The card may reach all memory of the machine: said aloud, or a mechanism without memory protection is refused. */
  noMemoryProtection: boolean
  /** Number of queues. */
  queues: number
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Long frames of the pool: virtio merges packets of several buffers to them. */
  jumboFrames: number
  /** Slots of each ring, a power of two from 64 to 4096. */
  ringSize: number
  /** "auto", "huge" or "ordinary". Without an IOMMU only huge pages will do. */
  pages: string
  /** Every frame on the wire, not only those addressed to the card. */
  promiscuous: boolean
  /** Sleep until a frame comes, by the card's interrupts; else poll. */
  interrupts: boolean
  /** An address other than the card's own, as 02:00:00:00:00:01. */
  mac?: string
  /** Rings in the packed layout: virtio alone. */
  packed: boolean
  /**
   * A classic BPF program (struct sock_filter, this machine's byte order): handlers see what it wants, everything else
   * is passed. All frames when left out.
   */
  filter?: Uint8Array
  /** A pcapng file to write every received and sent frame to. */
  tap?: string
  /** Add to that file what a port before this one has begun. */
  tapAppend?: boolean
}

/** Who is at the other end, as the kernel noted it. */
export interface Peer {
  /** Its process. */
  pid: number
  /** Effective user. */
  uid: number
  /** Effective group. */
  gid: number
  /** Supplementary groups. */
  groups: Array<number>
  /** A handle of that very process; none when it has ended. */
  process?: ProcessHandle
}

/** The counters of a port, and of each of its queues. */
export interface PortCounters {
  /** All queues together. */
  total: Counters
  /** Each queue, in the order they were asked for. */
  queues: Array<Counters>
}

/** A process, by a handle that is never another one's. */
export declare class ProcessHandle {
  /** Calls `ended` once, when the process has ended. */
  onEnd(ended: () => void): void
  /** Ends it (SIGKILL). */
  kill(): void
  /** Watches it no more. */
  close(): void
}

/** A loaded BPF program. */
export declare class Program {
  /** The program's number in the kernel. */
  get id(): number
  /** BPF_PROG_TEST_RUN on one frame of at least 14 bytes. */
  testRun(frame: Uint8Array): TestRun
  /** Gives the descriptor back; the program stays while it is attached. */
  close(): void
}

/** A process that holds a BPF program. */
export interface ProgramHolder {
  /** Its number. */
  pid: number
  /** Its command name. */
  command: string
}

/** What the kernel knows of a BPF program, and who holds it. */
export interface ProgramOwner {
  /** Its number. */
  id: number
  /** Its name, at most 15 bytes. */
  name: string
  /** Processes that hold a descriptor of it or of a link that runs it. */
  holders: Array<ProgramHolder>
}

/** How often a BPF program ran. */
export interface ProgramRuns {
  runs: number
  missed: number
}

/** What `loadProgram` loads. */
export interface ProgramSource {
  /** The kind of program. */
  type: "xdp" | "sched-cls" | "socket-filter"
  /** At most 15 bytes count. */
  name: string
  /** Instructions of 8 bytes each, as bpf(2) takes them. */
  instructions: Uint8Array
  /** Which ld_imm64 instruction (by index) wants which map. */
  maps: readonly MapReference[]
  /** BPF_F_XDP_HAS_FRAGS. */
  fragments?: boolean
}

/** A receive queue of a card that is lent to a virtual interface. */
export interface QueueLease {
  queue: number
  /** The virtual interface's number, in its own namespace. */
  ifindex: number
  /** The virtual interface's queue. */
  leasedAs: number
  /** The virtual interface is in another namespace. */
  elsewhere: boolean
}

/** How queue pairs of datagrams are reached. */
export interface RdmaAddress {
  /** The address of their port, as an IPv6 address. */
  gid: string
  /** Their numbers, in the order of the queues. */
  queuePairs: Array<number>
  /** The key that they check. */
  qkey: number
  /** Bytes of the largest frame that they take. */
  largest: number
}

/** How a port over queue pairs is. */
export interface RdmaFacts {
  /** How the other end reaches it; none with raw packets. */
  address?: RdmaAddress
  /** Bytes of the largest frame that its link takes. */
  largest: number
  /** "up", "down" or "gone". */
  state: string
  /** Times that a queue pair was set up again after an error. */
  restarts: number
  /** Why nothing will move any more; else the last error that a queue pair was set up again for. */
  why?: string
}

/** `ethtool -g`. */
export interface Rings {
  rx: number
  tx: number
  rxMax: number
  txMax: number
}

/** A unicast route. */
export interface Route {
  ifindex: number
  family: 4 | 6
  destination: string
  gateway: string | null
}

/** What the kernel's routing does with a packet. */
export interface RouteDecision {
  kind: "unicast" | "local" | "broadcast" | "anycast" | "multicast" | "blackhole" | "unreachable" | "prohibit" | "other"
  ifindex: number | null
  gateway: string | null
}

/** `ethtool -x`. */
export interface Rss {
  indirection: Array<number>
  key: string
  hashFunction: number
  inputTransform: number
}

/** While this is open the kernel counts how often each BPF program runs. */
export declare class RunCounting {
  /** Ends the counting. */
  close(): void
}

/** A TCP or UDP socket. */
export interface SocketFacts {
  protocol: "tcp" | "udp"
  family: 4 | 6
  localAddress: string
  localPort: number
  remoteAddress: string
  remotePort: number
  state: "listen" | "established" | "other"
  inode: number
}

/** An AF_XDP socket: what goes into an XSKMAP, at the key `queue`. */
export interface SocketOfQueue {
  /** The queue's number on its device. */
  queue: number
  /** The socket's descriptor, valid until the port is closed. */
  fd: number
}

/** What stands at tc ingress of an interface. */
export interface TcIngress {
  /** The kernel has tcx (6.6). */
  tcx: boolean
  /** The interface has the clsact qdisc. */
  clsact: boolean
  /** The names of its BPF filters there. */
  filters: Array<string>
}

/** What a program made of a frame. */
export interface TestRun {
  /** What it returned. */
  verdict: number
  /** The frame as it left it. */
  frame: Uint8Array
}

/** What openVerbs is asked for. */
export interface VerbsOptions {
  /** The RDMA device, e.g. "mlx5_0". */
  device: string
  /** Its port, from 1. */
  port: number
  /** Number of queue pairs. */
  queues: number
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Work requests of each side of a queue pair, a power of two. */
  ringSize: number
  /** "auto", "huge" or "ordinary". */
  pages: string
  /** Raw packets: flow rules, each a struct ibv_flow_attr with its specifications. None: datagrams. */
  rules?: Array<Uint8Array>
  /** With datagrams: which of the port's addresses; none: one for RoCE version 2. */
  gid?: number
  /** With datagrams: the key of the queue pairs. */
  qkey?: number
  /** Loops on it never sleep. */
  busyPoll: boolean
  /** A pcapng file to write every received and sent frame to. */
  tap?: string
  /** Add to that file what a port before this one has begun. */
  tapAppend?: boolean
}

/** What openVirtioUser and openVhostUser are asked for. */
export interface VhostUserOptions {
  /** The socket's path. */
  path: string
  /** Listen there for the other end; otherwise connect to it. */
  server: boolean
  /** Number of queue pairs. */
  queues: number
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Frames of 68 KiB for packets longer than a frame; with any, the driver lets receive buffers be merged. */
  jumboFrames: number
  /** "auto", "huge" or "ordinary". */
  pages: string
  /** Slots of each ring, a power of two; the device end takes what its driver has. */
  ringSize: number
  /**
   * "packed" or "split": the one layout to use. None: split at the driver, and at the device end what its driver
   * chooses.
   */
  layout?: string
  /** Loops on it never sleep. */
  busyPoll: boolean
  /** A pcapng file to write every received and sent frame to. */
  tap?: string
  /** Add to that file what a port before this one has begun. */
  tapAppend?: boolean
}

/** What XDP an interface can. */
export interface XdpFeatures {
  features: Array<string>
  zeroCopyMaxSegments: number
  rxMetadata: Array<string>
}

/** An AF_XDP socket on a queue. */
export interface XskFacts {
  inode: number
  queue: number
  holders: Array<XskHolder>
  zeroCopy: boolean | null
  umem: XskUmem | null
  rxEntries: number | null
  fillEntries: number | null
  statistics: XskStatistics | null
  rx: XskRing | null
  tx: XskRing | null
  fill: XskRing | null
  completion: XskRing | null
}

/** A process that has a socket in use. */
export interface XskHolder {
  pid: number
  command: string
  fills: boolean
}

/** Where a ring's two ends are. */
export interface XskRing {
  producer: number
  consumer: number
  needWakeup: boolean
}

/** What the kernel counted for an AF_XDP socket. */
export interface XskStatistics {
  rxDropped: number
  rxInvalidDescriptors: number
  txInvalidDescriptors: number
  rxRingFull: number
  fillRingEmpty: number
  txRingEmpty: number
}

/** The frame memory of an AF_XDP socket. */
export interface XskUmem {
  id: number
  chunkSize: number
  headroom: number
}

/** Connects to who listens at `path`. */
export declare function connectLocal(path: string): Connection;

/** Whether rdma-core's libibverbs can be loaded here. */
export declare function hasVerbsLibrary(): boolean;

/** Listens at `path`, which must not exist. */
export declare function listenLocal(path: string): Listener;

/** Locks the file at `path`, which is made where there is none; null when another has the lock. */
export declare function lockFile(path: string): FileLock | null;

/** Tells who supervises this process how it is, as "READY=1" (sd_notify(3)); false where nobody wants to know. */
export declare function notifySupervisor(state: string): boolean;

/**
 * Opens packet sockets over one new pool. A socket filter program says which frames they take; the kernel handles
 * the same frames too, unless a program at tc ingress drops them there.
 */
export declare function openAfPacket(netns: Netns, options: AfPacketOptions, filter: Program): NativePort;

/** Opens AF_XDP sockets over one new pool, bound to the queues. No frame arrives before they stand in an XSKMAP. */
export declare function openAfXdp(netns: Netns, options: AfXdpOptions): NativePort;

/**
 * Opens a lease. Takes the descriptors: their objects are closed afterwards, also when this fails.
 * `ways`: the queues of the return port, one for each socket, or none.
 */
export declare function openLease(options: LeaseOptions, sockets: Array<Descriptor>, memory: Descriptor, ways: Array<Descriptor>): NativePort;

/**
 * Opens a card that a broker opened and passed, over the memory that it was lent with; `via`, `pages` and
 * `noMemoryProtection` are of no account. Asks for no right. Takes the descriptors: their objects are closed afterwards,
 * also when this fails.
 */
export declare function openLentCard(options: PciOptions, lent: LentCardOptions, device: Descriptor, memory: Descriptor): NativePort;

/** Opens a device that makes packets out of nothing and swallows what is sent: for tests and measurements. */
export declare function openLoopback(options: LoopbackOptions): NativePort;

/** Takes a card that is bound to the mechanism's driver, starts it and opens its queues over one new pool. */
export declare function openPci(options: PciOptions): NativePort;

/** Opens a handle of the process with that number now. */
export declare function openProcess(pid: number): ProcessHandle;

/** Opens queue pairs of an RDMA device, which stays with the kernel. */
export declare function openVerbs(options: VerbsOptions): NativePort;

/** Opens the device end of a vhost-user socket: a QEMU guest, or another driver, attaches to it. */
export declare function openVhostUser(options: VhostUserOptions): Promise<NativePort>;

/** Opens the virtio driver over a vhost-user socket, as DPDK's virtio-user does: the device is another process. */
export declare function openVirtioUser(options: VhostUserOptions): Promise<NativePort>;

/** Gives the function to a kernel driver, by driver_override: vfio-pci, uio_pci_generic or igb_uio. */
export declare function pciBind(address: string, driver: string, root?: string | undefined | null): void;

/** The PCI function at `address`. Throws ENODEV when there is none, EINVAL when that is no address. */
export declare function pciFunction(address: string, root?: string | undefined | null): PciFunction;

/** Every PCI function. `root`: another bus than /sys/bus/pci, laid out like it. */
export declare function pciFunctions(root?: string | undefined | null): Array<PciFunction>;

/** Gives the function back to the driver that the kernel chooses for it; gives that driver's name. */
export declare function pciGiveBack(address: string, root?: string | undefined | null): string | null;

/** Whether the kernel has a driver of that name now: its module is loaded, or built in. */
export declare function pciHasDriver(driver: string, root?: string | undefined | null): boolean;

/**
 * Whether the function at `address` is open by VFIO somewhere, or its registers are mapped, as its IOMMU group tells;
 * null where that tells nothing.
 */
export declare function pciIsOpen(address: string, root?: string | undefined | null): boolean | null;

/** Locks the function at `address` against who would open, take or give it back. Throws EBUSY when somebody has it. */
export declare function pciLock(address: string, root?: string | undefined | null): PciLock;

/**
 * Makes `count` virtual functions of a physical one; 0 removes them. With `probe` false the kernel binds none of its
 * drivers to them.
 */
export declare function pciSetVirtualFunctions(address: string, count: number, probe: boolean, root?: string | undefined | null): void;

/** Binds the calling thread to a processor: a worker's own, for as long as it lives. */
export declare function pinThread(core: number): void;

/**
 * Takes a queue of a port for the calling thread.
 * 
 * `place` counts from 0 in the order in which the port's queues were asked for. Throws ENOENT when there is no
 * such port or queue, EBUSY while another thread or handler has it.
 * 
 * `outputs` are the ports that the verdict send reaches as 1, 2 and so on; 0 is the port itself. With a list, also an
 * empty one, other ports' handlers may send out of this queue too while it is taken.
 */
export declare function takeQueue(port: number, place: number, outputs?: Array<number> | undefined | null): NativeQueue;
