// The plan of a split: a value that can be printed, explained and tested without a kernel.
import type { ErrorCode } from "../errors.js";
import type { Channels } from "../kernel.js";
import type { Hint, RxMetadata } from "./metadata.js";

export type Backend = "af_xdp" | "af_packet";
export type ZeroCopy = "require" | "prefer" | "off";
export type Mode = "driver" | "generic";

/** What a user asks for. */
export interface SplitRequest {
  /** The interface's name. */
  readonly ifname: string;
  /** pcap-filter(7) expressions, or "all"; a frame of any of them is taken. */
  readonly flows: readonly string[];
  /** Number of own queues wanted (1 when left out), or exactly these queues. */
  readonly queues?: number | readonly number[] | undefined;
  /** "auto" when left out. "vf": a virtual function of the card, driven by our own driver. */
  readonly backend?: "auto" | Backend | "vf" | undefined;
  /** "prefer" when left out. */
  readonly zeroCopy?: ZeroCopy | undefined;
  /** "auto" when left out: driver mode, generic mode where the driver has no XDP. */
  readonly mode?: "auto" | Mode | undefined;
  /** "auto" when left out: an own queue where the card can steer to one. "lease": that queue, as a queue lease. */
  readonly steering?: "auto" | "shared" | "lease" | undefined;
  /** Take the SSH session's own flow too. */
  readonly force?: boolean | undefined;
  /** Show what is taken to tcpdump. */
  readonly tap?: boolean | undefined;
  /** What to ask the driver of each frame; true: all that it gives. Nothing when left out. */
  readonly metadata?: boolean | readonly Hint[] | undefined;
  /** Seconds after which the split undoes itself unless confirmed; null: never. */
  readonly confirmSeconds?: number | null | undefined;
  /** Ways that were tried and refused by the kernel: the ladder steps over them and says why. */
  readonly avoid?: readonly Refusal[] | undefined;
}

/** A rung of the ladder that the kernel refused at run time. */
export interface Refusal {
  readonly backend: Backend;
  /** null: the backend in any mode. */
  readonly mode: Mode | null;
  readonly why: string;
  /** What the refusal is, where it has a code of its own (E_KERNEL_TOO_OLD). */
  readonly code?: ErrorCode;
}

/** One lasting setting of a device, as it is to be. Everything is JSON, for it goes into the journal. */
export type Change =
  | { readonly kind: "feature"; readonly feature: string; readonly on: boolean }
  | { readonly kind: "channels"; readonly channels: Channels }
  /** null: the driver's default. */
  | { readonly kind: "rss"; readonly indirection: readonly number[] | null }
  /** bytes: the struct ethtool_rx_flow_spec in hex, and what `ethtool -N` would be told; null: no rule there. */
  | {
      readonly kind: "ntuple";
      readonly location: number;
      readonly bytes: string | null;
      readonly words?: string;
    }
  /** A netkit device of that name with a lease of each queue, in that order; `present: false`: no such device. */
  | {
      readonly kind: "lease";
      readonly name: string;
      readonly queues: readonly number[];
      readonly present: boolean;
    }
  /**
   * A clsact filter of that name at ingress, made with the sockets where the kernel has no tcx; `present: false`
   * without it, and without the qdisc too where that came with it.
   */
  | {
      readonly kind: "ingress-filter";
      readonly name: string;
      readonly present: boolean;
      readonly qdisc: boolean;
    }
  /**
   * A virtual function of the card at PCI address `card`, with the address `mac` and the spoof check on; `present: false`:
   * none. `probes`: whether the kernel's drivers took virtual functions by themselves before.
   */
  | {
      readonly kind: "virtual-function";
      readonly card: string;
      readonly mac: string;
      readonly probes: boolean;
      readonly present: boolean;
    };

/** A change, what undoes it, and which device it is about. */
export interface Step {
  readonly device: { readonly ifindex: number; readonly name: string };
  /** Before the sockets are opened and the program attached, or after. */
  readonly when: "before" | "after";
  readonly apply: Change;
  readonly undo: Change;
  /** The value before, where the undo is another one (an RSS table that goes back to "the driver's default"). */
  readonly was?: Change;
  /** In words, e.g. "take queue 3 out of the RSS table". */
  readonly words: string;
}

/** How the flow's frames travel. */
export interface Path {
  readonly kind: "own-queue" | "shared-queues" | "whole-card" | "virtual-function";
  readonly backend: Backend | "vf";
  /** null for af_packet and vf. */
  readonly mode: Mode | null;
  /** The queues that get a socket (af_packet: members of the fanout, numbered from 0). */
  readonly queues: readonly number[];
  /** What is asked of the kernel; what was obtained is read back after bind. */
  readonly zeroCopy: ZeroCopy;
  readonly steering: "ntuple" | "xdp" | "packet-socket" | "mac";
  /** The netkit device whose queue i + 1 is a lease of `queues[i]`: the sockets are bound there. null: to the card. */
  readonly lease: string | null;
  /** Locations of the ntuple rules. */
  readonly rules: readonly number[];
  /** A frame may be longer than one of the pool: bind with XDP_USE_SG. */
  readonly multiBuffer: boolean;
  /** The driver may take several buffers a frame: load the XDP program with BPF_F_XDP_HAS_FRAGS. */
  readonly fragments: boolean;
  /** What the driver, or for af_packet the kernel, is asked of each frame. */
  readonly hints: readonly Hint[];
  /** What a handler can learn of a frame beyond its bytes. */
  readonly metadata: RxMetadata;
}

/** A way that was looked at, best first. */
export interface Rung {
  readonly name: string;
  readonly taken: boolean;
  /** Why it was not taken, or why this one was. */
  readonly why: string;
}

/** An interruption to expect. */
export interface Outage {
  readonly what: string;
  /** About how long, seconds; null where it only costs some packets. */
  readonly seconds: number | null;
}

export interface Plan {
  readonly version: 1;
  readonly device: {
    readonly ifindex: number;
    readonly name: string;
    readonly mac: string;
    readonly driver: string;
    readonly bus: string;
    readonly mtu: number;
    /** There was a link when the plan was made, so one is to be there when the split is live. */
    readonly carrier: boolean;
    readonly netnsInode: number;
  };
  readonly flows: readonly string[];
  readonly path: Path;
  readonly ladder: readonly Rung[];
  readonly steps: readonly Step[];
  readonly outages: readonly Outage[];
  /** Whose view of the flow ends, e.g. "nftables and iptables". */
  readonly bypasses: readonly string[];
  /** What the user should not overlook: steps down, listeners that go deaf. */
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
  readonly tap: boolean;
  readonly confirmSeconds: number | null;
  /** A guardian is needed: something lasting is changed, or the split is to be confirmed. */
  readonly guardian: boolean;
}
