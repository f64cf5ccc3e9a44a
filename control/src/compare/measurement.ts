// What a measurement of a mechanism gives: the flow as the user got it, and what the kernel's own traffic felt of it.

/** Round trips of the kernel's own traffic over the same card: a datagram to an echo server, one at a time. */
export interface KernelTraffic {
  readonly sent: number;
  readonly answered: number;
  /** Microseconds; null where none was answered. */
  readonly p50: number | null;
  readonly p99: number | null;
}

/** What the kernel's traffic saw while nothing was sent, while the program was flooded, and while it was stopped (SIGSTOP). */
export interface KernelEffect {
  readonly quiet: KernelTraffic;
  readonly saturated: KernelTraffic;
  readonly stopped: KernelTraffic;
}

/** The mechanism leaves the kernel nothing of the card to have traffic over. */
export interface NoKernelTraffic {
  /** Why, in words. */
  readonly none: string;
}

/** One mechanism, measured. */
export interface Measurement {
  /** As fast as the sender goes. */
  readonly saturated: {
    /** Packets a second that were sent, and that the program got. */
    readonly offered: number;
    readonly received: number;
    /** The share of what was sent that the program did not get, 0 to 1. */
    readonly loss: number;
    /** Nanoseconds of the program's CPU time a packet, and its share of one processor, 0 to 1. */
    readonly cpuPerPacket: number;
    readonly cpu: number;
  };
  /** At a moderate rate: from the moment that the sender stamps a packet until the program looks at it. */
  readonly latency: {
    /** Packets a second. */
    readonly offered: number;
    readonly loss: number;
    /** Microseconds; null where none arrived. */
    readonly p50: number | null;
    readonly p99: number | null;
    /** Nanoseconds of the program's CPU time a packet. */
    readonly cpuPerPacket: number;
  };
  readonly kernel: KernelEffect | NoKernelTraffic;
  /** How the frames came: mode, queues, and every step down. */
  readonly path: string;
}

/** What became of the attempt to measure a mechanism. */
export type Outcome =
  | { readonly measured: Measurement; readonly by: string }
  /** Why it was not measured. */
  | { readonly why: string };
