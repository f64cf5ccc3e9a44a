// How much memory a lease is given: one number, for the policy, for lists and for metrics.
import type { LeaseRecord } from "../lease/record.js";
import type { LeaseRequest } from "../protocol/messages.js";
import type { Mode } from "../steering/plan.js";
import { wholeBytes } from "./whole-card.js";

/** What of a card decides how long a frame may be. */
export interface FrameSource {
  readonly mtu: number;
  readonly mode: Mode;
}

/** Frames of 68 KiB for packets longer than a frame, a queue: as many as a split has. */
const JUMBO_FRAMES_A_QUEUE = 48;
/** Bytes of one, as the pool has them (JUMBO_SIZE, datapath/src/frame). */
const JUMBO_FRAME_SIZE = 68 * 1024;
/** Longest packet that fits one frame of the pool: less the headroom and an Ethernet header. */
const HEADROOM = 256;
const ETHERNET = 14;

/** Frames longer than one of the pool that a lease's pool has beside. */
export function jumboFrames({ queues, frameSize }: LeaseRequest, { mode, mtu }: FrameSource): number {
  const long = mode === "generic" || mtu > frameSize - HEADROOM - ETHERNET;
  return long ? JUMBO_FRAMES_A_QUEUE * queues : 0;
}

/**
 * Bytes of the memory that a lease is given; of a whole card with its rings, which lie in the same memory; of a foreign
 * lease none, whose client makes its own.
 * @param card Where its frames come from; null: not known yet, and they are taken for short.
 */
export function poolBytes(request: LeaseRequest, card: FrameSource | null): number {
  if (request.mechanism === "vfio") return wholeBytes(request);
  if (request.mechanism === "foreign") return 0;
  const jumbo = card === null ? 0 : jumboFrames(request, card);
  return request.frames * request.frameSize + jumbo * JUMBO_FRAME_SIZE;
}

/** The same of a lease that there is. */
export function memoryOf({
  memory,
  request,
  granted,
}: Pick<LeaseRecord, "memory" | "request" | "granted">): number {
  return memory ?? poolBytes(request, granted === null ? null : { mtu: granted.mtu, mode: granted.xdp });
}
