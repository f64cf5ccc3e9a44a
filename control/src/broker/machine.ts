// What a broker asks of the kernel beyond what a split does: ports, sockets to be passed, names that outlive it.
import type {
  Connection,
  FileLock,
  LinkEvent,
  LinkWatch,
  Listener,
  Peer,
  ProcessHandle,
} from "@bifurcate/addon";
import { loadAddon } from "../addon.js";
import type { Attachment, BpfMap, Kernel, Netns, Program } from "../kernel.js";

export type { Connection, FileLock, Listener, Peer, ProcessHandle } from "@bifurcate/addon";

/** An open descriptor, to be passed. */
export interface Descriptor {
  /** Its number in this process. */
  readonly number: number;
  close(): void;
}

/** A map that can be given a name in a BPF file system. */
export interface PinnableMap extends BpfMap {
  pin(path: string): void;
  /** Another descriptor of it, to be passed. */
  descriptor(): Descriptor;
}

/** The network namespace that a client's socket was made in, as the kernel tells it. */
export interface ClientNetns {
  readonly inode: number;
  /** Who made the user namespace that it belongs to, and so has every right over it. */
  readonly owner: number;
  close(): void;
}

/** A link that can be given a name, and whose program can be replaced at once. */
export interface Link extends Attachment {
  pin(path: string): void;
  update(program: Program): void;
}

/** What the kernel gave for a lease. */
export interface LeaseSockets {
  readonly sockets: Descriptor[];
  readonly memory: Descriptor;
  /** Chunks in each fill ring. */
  readonly filled: number;
  readonly obtained: {
    readonly zeroCopy: boolean;
    readonly needWakeup: boolean;
    readonly multiBuffer: boolean;
    readonly busyPoll: boolean;
    readonly pages: string;
    readonly refused: readonly string[];
  };
}

/** How to make sockets and pool. */
export interface LeaseSocketOptions {
  ifname: string;
  queues: number[];
  frames: number;
  frameSize: number;
  jumboFrames: number;
  zeroCopy: string;
  mode: string;
  busyPoll: boolean;
  pages: string;
  ringSize: number;
  metadata: boolean;
}

/** A namespace with what a broker needs of it. */
export interface BrokerNetns extends Netns {
  attachXdp(program: Program, ifindex: number, mode: "driver" | "generic"): Link;
  attachTcIngress(program: Program, ifindex: number, filter?: string): Link;
  /** Both ends down, without addresses of their own; gives their numbers. */
  createVeth(name: string, peer: string, queues: number): number[];
  setLink(ifindex: number, change: { up?: boolean; mtu?: number; mac?: number[] }): void;
  deleteLink(ifindex: number): void;
  /** To another namespace, which takes it down. */
  moveLink(ifindex: number, to: ClientNetns): void;
  createLeaseSockets(options: LeaseSocketOptions, transmit: boolean): LeaseSockets;
  /**
   * Whether an AF_XDP socket is bound to it now; null when nobody has it any more, and the kernel has not let go of it
   * within `patienceMs`. Who has it is not waited for.
   */
  isQueueHeld(ifname: string, queue: number, patienceMs: number): boolean | null;
  /** Calls `told` for everything that happens to an interface, until the watch is closed. */
  watchLinks(told: (event: LinkEvent) => void): LinkWatch;
  createTap(name: string, queues: number): { readonly ifindex: number; readonly queues: Descriptor[] };
}

/** Power over what a card that is leased whole reaches. */
export interface CardLoan {
  /** From now on it reaches nothing. */
  revoke(): void;
  /** Gives the power back; the card stays as it is. */
  close(): void;
}

/** The memory of a card that was lent, as its lender keeps it. */
export interface KeptMemory {
  /** Gives its pages back to the kernel, whoever keeps the file. */
  discard(): void;
  close(): void;
}

/** A card that was opened to be passed. */
export interface LentCard {
  readonly device: Descriptor;
  readonly memory: Descriptor;
  readonly iova: number;
  readonly ringsAt: number;
  readonly loan: CardLoan;
  readonly kept: KeptMemory;
}

/** The kernel with what a broker needs of it. */
export interface BrokerKernel extends Kernel {
  openNetns(name: string | null): BrokerNetns;
  createMap(options: Parameters<Kernel["createMap"]>[0]): PinnableMap;
  pinnedMap(path: string): PinnableMap;
  pinnedLink(path: string): Link;
  /** A name itself, to be passed: by it another process opens what it may, although it may not enter the folder. */
  openName(path: string): Descriptor;
  /** Whether the senders behind a card of that driver leave checksums and segmentation to it. */
  isVirtualDriver(driver: string): boolean;
  /** Opens a card by VFIO, with new memory that it reaches and nothing else; meanwhile others are served. */
  lendCard(address: string, poolBytes: number, ringBytes: number, pages: string): Promise<LentCard>;
  /** Whether somebody has the card open by VFIO, as its IOMMU group tells at once; null where that tells nothing. */
  isCardHeld(address: string): boolean | null;
  /** The same by the card's own file, for which the kernel may wait for its holder; meanwhile others are served. */
  lookAtCard(address: string): Promise<boolean>;
}

/** Sockets, processes and locks of this machine. */
export interface Locals {
  listen(path: string): Listener;
  connect(path: string): Connection;
  process(pid: number): ProcessHandle;
  /** A file that this process has until it closes the lock or ends; null when another has it. */
  lock(path: string): FileLock | null;
}

/** This machine's kernel for a broker. That the addon has it all, the compiler checks here. @throws E_NO_ADDON */
export function brokerKernel(): BrokerKernel {
  return new (loadAddon().NativeKernel)();
}

/** This machine's local sockets, processes and locks. @throws E_NO_ADDON */
export function locals(): Locals {
  const { listenLocal, connectLocal, openProcess, lockFile } = loadAddon();
  return { listen: listenLocal, connect: connectLocal, process: openProcess, lock: lockFile };
}

/** Tells who supervises this process, systemd for one, how it is (sd_notify(3)). @throws E_NO_ADDON */
export function tellSupervisor(state: "READY=1"): void {
  loadAddon().notifySupervisor(state);
}

export type { Peer as PeerFacts };
