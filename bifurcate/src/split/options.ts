// What split() can be asked for.

import { BifurcateError } from "@bifurcate/control/errors";
import { HINTS, type Hint } from "@bifurcate/control/steering/metadata";
import {
  call,
  checkValue,
  distinct,
  either,
  flag,
  list,
  nothing,
  positive,
  readOptions,
  text,
  whole,
  word,
  type Kind,
  type Kinds,
} from "../check-options.js";
import { FRAMES_MAX, FRAMES_MIN } from "../pool.js";

export const BACKENDS = ["auto", "af_xdp", "af_packet", "vf"] as const;
export const ZERO_COPY = ["require", "prefer", "off"] as const;
export const VIA = ["auto", "broker", "in-process"] as const;
export const TRANSMIT = ["none", "own", "raw"] as const;
/** More than any card has: its drivers stop at a few hundred. */
export const QUEUE_MAX = 9999;
/** Thirty days. */
export const SECONDS_MAX = 30 * 86_400;

/** How to split a card. */
export interface SplitOptions {
  /** pcap-filter(7) expressions, or "all"; a frame of any of them is taken. */
  readonly flows: string | readonly string[];
  /** A network namespace by name or path; the process's own when left out. */
  readonly netns?: string | null | undefined;
  /** How many own queues, or exactly which queues; chosen when left out. */
  readonly queues?: number | readonly number[] | undefined;
  /** "auto": AF_XDP, or AF_PACKET where XDP is refused. "vf": a virtual function of the card, by our own driver. */
  readonly backend?: "auto" | "af_xdp" | "af_packet" | "vf" | undefined;
  /** "require" makes a copy an error; "prefer", the default, says so; "off" asks for a copy. */
  readonly zeroCopy?: "require" | "prefer" | "off" | undefined;
  /** Where the XDP program is to run. */
  readonly mode?: "auto" | "driver" | "generic" | undefined;
  /**
   * "shared": no queue is taken from the kernel, even where the card could steer to one. "lease": the own queue is a
   * queue lease (docs/leases.md), or an error.
   */
  readonly steering?: "auto" | "shared" | "lease" | undefined;
  /** Take even the SSH session's own flow. */
  readonly force?: boolean | undefined;
  /** Poll without ever sleeping: lower latency, a whole core. */
  readonly busyPoll?: boolean | undefined;
  /**
   * A pcapng file to write the taken flow to, in both directions. true: show it to tcpdump, on an interface `bftapN`
   * beside the card, which `path.obtained.tap` names.
   */
  readonly tap?: boolean | string | undefined;
  /**
   * What to ask the card's driver of each frame (XDP metadata), for `batch.hash`, `batch.timestamp` and `batch.vlan`; true:
   * all that it gives. `path.metadata` says what comes of it. Nothing when left out, since it costs time for each frame.
   * Packet sockets give the kernel's hash when asked, and its time in any case.
   */
  readonly metadata?: boolean | readonly Hint[] | undefined;
  /** Undo the split by itself after so many seconds, unless `port.confirm()` is called before. */
  readonly confirmSeconds?: number | null | undefined;
  /**
   * The verdict pass: frames back into the kernel. Left out: opened, and a note in `path.notes` where it cannot
   * be. true: an error where it cannot be. false: not opened; passed frames are dropped.
   */
  readonly pass?: boolean | undefined;
  /** Frames of the pool a queue; 4096 when left out. */
  readonly frames?: number | undefined;
  /** "huge" makes ordinary pages an error. */
  readonly pages?: "auto" | "huge" | "ordinary" | undefined;
  /** Told what the user should not overlook, at the start and while the split runs. */
  readonly onWarning?: ((text: string) => void) | undefined;
  /**
   * Who opens it. "auto": the broker, when one listens and serves this network namespace, else this process.
   * "broker": a lease, for which this process needs no right at all. "in-process": this process, with its own rights.
   */
  readonly via?: "auto" | "broker" | "in-process" | undefined;
  /**
   * What the port may send, through a broker. "own", the default: answers to the flow, from the card's addresses, which
   * the kernel checks frame by frame. "none": nothing. "raw": anything, where the policy gives that.
   */
  readonly transmit?: "none" | "own" | "raw" | undefined;
  /** Where journals are written; BIFURCATE_STATE_DIR or /run/bifurcate when left out. */
  readonly stateDirectory?: string | undefined;
}

const KINDS: Kinds<SplitOptions> = {
  flows: orEmpty(either(text, list(text))),
  netns: either(text, nothing),
  queues: either(whole(1, QUEUE_MAX), distinct(whole(0, QUEUE_MAX))),
  backend: word(BACKENDS),
  zeroCopy: word(ZERO_COPY),
  mode: word(["auto", "driver", "generic"]),
  steering: word(["auto", "shared", "lease"]),
  force: flag,
  busyPoll: flag,
  tap: either(flag, text),
  metadata: orEmpty(either(flag, list(word(HINTS)))),
  confirmSeconds: either(positive(SECONDS_MAX), nothing),
  pass: flag,
  frames: whole(FRAMES_MIN, FRAMES_MAX),
  pages: word(["auto", "huge", "ordinary"]),
  onWarning: call,
  via: word(VIA),
  transmit: word(TRANSMIT),
  stateDirectory: text,
};

/** An empty list too: a program may have put it together, and it asks for nothing. */
function orEmpty({ allowed, accepts }: Kind): Kind {
  return { allowed, accepts: (value) => accepts(value) || (Array.isArray(value) && value.length === 0) };
}

/** What split() was asked for. @throws E_BAD_OPTION, E_NO_FLOW */
export function readSplitOptions(ifname: string, options: SplitOptions | undefined): SplitOptions {
  checkValue("split a card", "the interface", ifname, text);
  const what = `split ${ifname}`;
  const { flows = [], ...rest } = readOptions<Partial<SplitOptions>>(
    what,
    options === undefined ? {} : options,
    KINDS,
  );
  if (flows.length === 0) throw new BifurcateError("E_NO_FLOW", { what, why: "no flow was named" });
  return { flows, ...rest };
}
