// What can be opened by a word: "loopback:queues=1,order=hot".

import { BifurcateError } from "@bifurcate/control";

/** What the loopback device is asked for. */
export interface LoopbackSpec {
  readonly queues: number;
  /** Frames of the pool. */
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  /** Length of the frames that it makes, in bytes. */
  readonly length: number;
  /** hot: the frame freed last is received next; cold: a walk through the whole pool. */
  readonly order: "hot" | "cold";
}

const DEFAULTS: LoopbackSpec = { queues: 1, frames: 4096, frameSize: 2048, length: 60, order: "hot" };

function bad(spec: string, why: string): BifurcateError {
  return new BifurcateError("E_BAD_OPTION", {
    what: `open ${spec}`,
    why,
    next: "Write for example loopback:queues=2,order=cold; the keys are queues, frames, frameSize, length and order.",
  });
}

/** Reads "loopback" or "loopback:key=value,...". @throws E_BAD_OPTION */
export function parseSpec(spec: string): LoopbackSpec {
  const [device, rest] = spec.split(/:(.*)/s, 2) as [string, string | undefined];
  if (device !== "loopback") throw bad(spec, `there is no device named '${device}'; there is: loopback`);
  const found: Record<string, string | number> = { ...DEFAULTS };
  for (const pair of (rest ?? "").split(",").filter((text) => text !== "")) {
    const [key, value] = pair.split("=", 2) as [string, string | undefined];
    if (!(key in DEFAULTS)) throw bad(spec, `'${key}' is not a key`);
    if (key === "order") {
      if (value !== "hot" && value !== "cold") throw bad(spec, "order is hot or cold");
      found[key] = value;
    } else {
      if (value === undefined || !/^[0-9]{1,9}$/.test(value)) throw bad(spec, `${key} is a whole number`);
      found[key] = Number(value);
    }
  }
  const result = found as unknown as LoopbackSpec;
  if (result.queues < 1 || result.queues > 64) throw bad(spec, "queues is 1 to 64");
  if (result.frameSize !== 2048 && result.frameSize !== 4096) throw bad(spec, "frameSize is 2048 or 4096");
  if (result.frames < 64 || result.frames * result.frameSize >= 2 ** 31) {
    throw bad(spec, "frames is at least 64, and all of them less than 2 GiB");
  }
  if (result.length < 14 || result.length > result.frameSize - 256) {
    throw bad(spec, `length is 14 to ${result.frameSize - 256}`);
  }
  return result;
}
