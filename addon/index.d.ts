// Generated from addon/src by `node addon/build.mjs`: do not edit.

/** What openAfXdp is asked for. */
export interface AfXdpOptions {
  /** Path of the namespace's file; the process's own when left out. */
  netns?: string
  /** The interface's name. */
  ifname: string
  /** The queues to bind a socket to. */
  queues: Array<number>
  /** Frames of the pool. */
  frames: number
  /** Bytes of a frame: 2048 or 4096. */
  frameSize: number
  /** Frames of 12 KiB for packets longer than a frame; with any, multi-buffer is asked for. */
  jumboFrames: number
  /** "require", "prefer" or "off". */
  zeroCopy: string
  /** Where the XDP program runs: "driver" or "generic". */
  mode: string
  /** Never sleep: the handler's turns drive the device. */
  busyPoll: boolean
  /** "auto", "huge" or "ordinary". */
  pages: string
  /** Entries of each ring, a power of two. */
  ringSize: number
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

/** The kernel of this machine. */
export declare class NativeKernel {
  /** The kernel of this machine; asks it nothing yet. */
   constructor()
  /** Effective capabilities of the calling thread by name, e.g. "CAP_NET_ADMIN". */
   capabilities(): Array<string>
  /** uname -r. */
   release(): string
}

/** An open port: its queues and its frame pool. */
export declare class NativePort {
  /** By which any thread of the process finds the port. */
  get id(): number
  /** Number of queues. */
  get queues(): number
  /** What the device really gave. */
  get obtained(): Obtained
  /** The AF_XDP sockets, in the order of the queues; none for other devices. */
   sockets(): Array<SocketOfQueue>
  /** "up", "down" or "gone": the device, asked of the kernel now. Devices without sockets are up. */
   state(): string
  /** The counters now. Cheap, and right at any time, from any thread. */
   stats(): PortCounters
  /** Opens the way back into the kernel for frames with the verdict pass, through the device the port is on. */
   enablePass(generic: boolean): PassOpened
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
  /** Blocks the thread until there may be frames: 1; nothing for `timeout_ms`: 0; the queue is asked back: -1. */
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
  /** Never sleep. */
  busyPoll?: boolean
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
}

/** How passed frames get back into the kernel. */
export interface PassOpened {
  /** The TAP that carries them; null with live frames. */
  tap?: string
  /** Why there is no TAP, when there is none. */
  reason?: string
}

/** The counters of a port, and of each of its queues. */
export interface PortCounters {
  /** All queues together. */
  total: Counters
  /** Each queue, in the order they were asked for. */
  queues: Array<Counters>
}

/** An AF_XDP socket: what goes into an XSKMAP, at the key `queue`. */
export interface SocketOfQueue {
  /** The queue's number on its device. */
  queue: number
  /** The socket's descriptor, valid until the port is closed. */
  fd: number
}

/** Opens AF_XDP sockets over one new pool, bound to the queues. No frame arrives before they stand in an XSKMAP. */
export declare function openAfXdp(options: AfXdpOptions): NativePort;

/** Opens a device that makes packets out of nothing and swallows what is sent: for tests and measurements. */
export declare function openLoopback(options: LoopbackOptions): NativePort;

/**
 * Takes a queue of a port for the calling thread.
 * 
 * `place` counts from 0 in the order in which the port's queues were asked for. Throws ENOENT when there is no
 * such port or queue, EBUSY while another thread or handler has it.
 */
export declare function takeQueue(port: number, place: number): NativeQueue;
