// Full rate through a TypeScript handler for a minute: resident memory at the start and at the end.
import path from "node:path";
import { buildExamples, runJson } from "../native.js";
import { compare, type Result } from "../rows.js";
import { onWire, whileSending } from "../wire.js";
import type { Bench, BenchOptions } from "./bench.js";

/** Shorter runs say little about a leak. */
const least = 60;

export const soak: Bench = {
  name: "soak",
  about: "60 s at full rate on veth through a TypeScript reflect: resident memory at the start : at the end",
  async run(options: BenchOptions): Promise<Result[]> {
    const examples = await buildExamples(options.root, options.progress);
    const subject = path.join(options.root, "bench", "dist", "subjects", "soak.js");
    const seconds = Math.max(least, options.seconds);
    return onWire("bsoak", async (card) => {
      options.progress(`soak: ${seconds} s`);
      const words = ["node", "--expose-gc", subject, card.netns, card.ifname, String(seconds)];
      const { result, command } = await whileSending({ examples, card, seconds: seconds + 20 }, () =>
        runJson<{ start: number; end: number; packets: number; noFrames: number }>(words, options.root),
      );
      return [
        compare(
          {
            name: "soak",
            row: "memory",
            unit: "bytes resident (ours: at the end, peer: at the start)",
            better: "less",
            target: null,
            note: `${result.packets} packets received, ${result.noFrames} lost for want of a frame`,
          },
          [{ value: result.end, command }],
          [{ value: result.start, command }],
        ),
      ];
    });
  },
};
