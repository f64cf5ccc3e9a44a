// What the API asks of the addon's data-path half: the shape of its classes, so that tests can stand in for them.

/** Counters of one queue, or of all queues of a port together, since the port was opened. */
export interface Counters {
  /** Frames that a handler was given. */
  readonly received: number;
  readonly receivedBytes: number;
  /** Frames given to the card. */
  readonly sent: number;
  readonly sentBytes: number;
  /** Frames dropped by verdict. */
  readonly dropped: number;
  /** Frames given back to the kernel. */
  readonly passed: number;
  /** Frames lost since the pool had no free frame for them. */
  readonly noFrames: number;
  /** Frames lost since a ring was full. */
  readonly ringFull: number;
  /** Descriptors that named memory they may not name. */
  readonly invalidDescriptor: number;
  /** Frames longer than any frame of the pool. */
  readonly tooLong: number;
  /** Verdicts that the native side did not accept: an unknown one, or a length the frame has no room for. */
  readonly handlerInvalid: number;
  /** Frames that a handler keeps now: received, and not ended yet. The other numbers only grow. */
  readonly kept: number;
  /** Frames that the device gave back with an error: not sent, or not received whole. */
  readonly deviceError: number;
  /** Frames that a copy for who watches (`tap`) had no room for. */
  readonly tapLost: number;
}

/** What a device gave, which may be less than what it was asked for. */
export interface Obtained {
  readonly zeroCopy: boolean;
  readonly needWakeup: boolean;
  readonly multiBuffer: boolean;
  readonly busyPoll: boolean;
  /** What the pool stands in: "huge" or "ordinary" pages. */
  readonly pages: string;
  /** Why the kernel refused a better way, for each that was tried. */
  readonly refused: readonly string[];
  /** The interface on which tcpdump sees the flow, where `tap: true` could be had. */
  readonly tap?: string;
}

/** One queue in the hands of the thread that took it. */
export interface NativeQueue {
  /** The frame pool as an external ArrayBuffer. */
  pool(): ArrayBuffer;
  /** The shared block, laid out as layout.ts says. */
  block(): ArrayBuffer;
  /** Carries out the verdicts in the block and fills it anew. Gives the number of frames; -1 when asked to stop. */
  readonly turn: () => number;
  /** Whether its loop is never to sleep. */
  readonly busyPoll: boolean;
  /** Blocks the thread until there is something to do: 1; nothing came in `timeoutMs`: 0; asked to stop: -1. */
  wait(timeoutMs: number): number;
  /**
   * Calls `ready` once, from the event loop, when there is something to do or the queue is to stop.
   * @returns false when the device has nothing to wait on: it always has something to do.
   */
  onReady(ready: () => void): boolean;
  /** Frames that the handler keeps. */
  kept(): number;
  /** Whether the pool ran out of free frames since the last call. */
  starved(): boolean;
  /** Gives the queue back to its port, after carrying out the verdicts in the block. */
  release(): void;
}

/** An AF_XDP socket of a queue. */
export interface QueueSocket {
  readonly queue: number;
  /** Its descriptor: what goes into an XSKMAP at the key `queue`. */
  readonly fd: number;
}

/** How the connection of a port over a vhost-user socket is. */
export interface NativeConnection {
  readonly connected: boolean;
  readonly connections: number;
  readonly features: readonly string[];
  readonly error?: string | null;
  readonly over: boolean;
}

/** How queue pairs of datagrams are reached. */
export interface NativeRdmaAddress {
  readonly gid: string;
  readonly queuePairs: number[];
  readonly qkey: number;
  readonly largest: number;
}

/** How a port over queue pairs of an RDMA device is. */
export interface NativeRdma {
  readonly address?: NativeRdmaAddress | null;
  readonly largest: number;
  /** "up", "down" or "gone". */
  readonly state: string;
  readonly restarts: number;
  readonly why?: string | null;
}

/** A card that our own driver has, as the addon tells it. */
export interface NativeCard {
  readonly driver: string;
  readonly mac: string;
  /** `speed` in Mb/s, 0 when the card does not say. */
  readonly link: { readonly up: boolean; readonly speed: number; readonly fullDuplex: boolean };
  /** By the datasheet's names; registers that there are for each queue come in the queues' order. */
  readonly statistics: readonly {
    readonly name: string;
    readonly meaning: string;
    readonly value: number;
  }[];
}

/** A port's queues and pool. */
export interface NativePort {
  /** By which a worker names it. */
  readonly id: number;
  readonly queues: number;
  readonly obtained: Obtained;
  /** Of a port over a vhost-user socket. */
  readonly connection?: NativeConnection | null;
  /** Of a port over queue pairs of an RDMA device. */
  readonly rdma?: NativeRdma | null;
  sockets(): QueueSocket[];
  /** "up", "down" or "gone": asks the kernel. */
  state(): string;
  /** The card, where a driver of our own has it; null after the close. */
  card?(): NativeCard | null;
  /** What the IOMMU stopped of a card of our own driver since this was last asked. */
  dmaFault?(): string | null;
  stats(): { readonly total: Counters; readonly queues: Counters[] };
  /** Opens the way back into the kernel for the verdict pass. */
  enablePass(generic: boolean): { readonly tap?: string; readonly reason?: string };
  /** To be called when the card's address or MTU has changed: the way back takes both. */
  followCard(): void;
  /** Runs a handler in Rust, a thread a queue, until the port is stopped. */
  runNative(options: NativeRunOptions, to?: NativePort | null): Promise<void>;
  /**
   * Asks for every queue back and waits until all have been given, `graceMs` at most.
   * @returns the places of the queues that have not.
   */
  stop(graceMs: number): Promise<number[]>;
  /** Like stop; then closes the device and puts zero pages in the place of the pool, unless queues are missing. */
  close(graceMs: number): Promise<number[]>;
}

/** How to run a handler in Rust. */
export interface NativeRunOptions {
  do: string;
  cores?: number[];
}
