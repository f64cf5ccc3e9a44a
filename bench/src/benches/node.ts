// A TypeScript handler on a split flow against the npm package `cap`: CPU time per packet delivered, same offered load.
import path from "node:path";
import { buildExamples } from "../native.js";
import { installCap } from "../peers/cap.js";
import { measured, type Measured } from "../receive.js";
import { compare, interleave, type Result } from "../rows.js";
import { onWire, whileSending } from "../wire.js";
import type { Bench, BenchOptions } from "./bench.js";

/** Frames a second offered to both: few enough that `cap` can deliver them. */
const rate = 50_000;

export const node: Bench = {
  name: "node",
  about: `npm cap : split with a TypeScript handler, process CPU time a packet, ${rate} packets/s offered to both`,
  async run(options: BenchOptions): Promise<Result[]> {
    const examples = await buildExamples(options.root, options.progress);
    const folder = await installCap(options.root, options.progress);
    const subjects = path.join(options.root, "bench", "dist", "subjects");
    return onWire("bnode", async (card) => {
      const sending = { examples, card, seconds: options.seconds + 10, rate };
      const side = (words: readonly string[]) => (): Promise<Measured> =>
        whileSending(sending, () => measured(words, options.root));
      const seconds = String(options.seconds);
      const ours = side(["node", path.join(subjects, "node-split.js"), card.netns, card.ifname, seconds]);
      const peer = side([
        ...["ip", "netns", "exec", card.netns, "node", path.join(subjects, "node-cap.js"), folder],
        ...[card.ifname, seconds],
      ]);
      const runs = await interleave(options.runs, ours, peer, (text) => {
        options.progress(`node: ${text}`);
      });
      const cost = (one: Measured) => ({ value: one.cpu / Math.max(1, one.packets), command: one.command });
      const rateOf = (one: Measured) => ({ value: one.perSecond, command: one.command });
      const of = { name: "node" } as const;
      return [
        compare(
          { ...of, row: "cpu", unit: "ns of CPU a packet", better: "less", target: 5 },
          runs.ours.map(cost),
          runs.peer.map(cost),
        ),
        compare(
          { ...of, row: "delivered", unit: "packets/s", better: "more", target: null },
          runs.ours.map(rateOf),
          runs.peer.map(rateOf),
        ),
      ];
    });
  },
};
