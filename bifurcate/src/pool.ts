// How large a frame pool may be, the same for every device.

import { BifurcateError } from "@bifurcate/control/errors";

/** The fewest frames of a pool. */
export const FRAMES_MIN = 64;
/** Bytes of a pool are fewer: JavaScript sees it as one buffer, and offsets in it are 32-bit numbers with a sign. */
export const POOL_BYTES = 2 ** 31;
/** Bytes of a frame, where nobody chooses. */
export const FRAME_SIZE = 2048;
/** Frames for each queue, where nobody chooses. */
export const FRAMES_A_QUEUE = 4096;
/** Frames for one queue, where the pool is its alone. */
export const FRAMES_MAX = POOL_BYTES / FRAME_SIZE - 1;
/** Bytes of a frame for what is longer than a frame: 68 KiB. */
const JUMBO_FRAME_SIZE = 68 * 1024;

/**
 * The frames of a pool for several queues.
 * @param frames For each queue.
 * @throws E_BAD_OPTION when the pool is 2 GiB or more.
 */
export function poolFrames(what: string, frames: number, queues: number, jumboFrames = 0): number {
  const all = frames * queues;
  if (all * FRAME_SIZE + jumboFrames * JUMBO_FRAME_SIZE < POOL_BYTES) return all;
  const most = Math.ceil((POOL_BYTES - jumboFrames * JUMBO_FRAME_SIZE) / FRAME_SIZE / queues) - 1;
  throw new BifurcateError("E_BAD_OPTION", {
    what,
    why: `frames is ${frames} for each of ${queues} queues, and has to be at most ${most}: the pool is less than 2 GiB`,
    next: "Give frames a smaller value, or leave it out.",
    data: { option: "frames", given: String(frames), queues, most },
  });
}
