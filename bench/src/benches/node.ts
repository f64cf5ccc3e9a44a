// A TypeScript handler on a split flow against the npm package `cap`: CPU time per packet delivered, same offered load.
import path from "node:path";
import { buildExamples } from "../native.js";
import { installCap } from "../peers/cap.js";
import { measured, type Measured } from "../receive.js";
import { compare, interleave, type Result } from "../rows.js";
import { onWire, whileSending } from "../wire.js";
import type { Bench, BenchOptions } from "./bench.js";

/** What is offered to both, and which CPU ratio is asked there. */
const loads = [
  { suffix: "", rate: undefined, target: 5 },
  { suffix: " 200k/s", rate: 200_000, target: null },
  { suffix: " 50k/s", rate: 50_000, target: null },
] as const;

export const node: Bench = {
  name: "node",
  about: "split with a TypeScript handler : npm cap, process CPU time a packet delivered, same offered load",
  async run(options: BenchOptions): Promise<Result[]> {
    const examples = await buildExamples(options.root, options.progress);
    const folder = await installCap(options.root, options.progress);
    const subjects = path.join(options.root, "bench", "dist", "subjects");
    return onWire("bnode", async (card) => {
      const results: Result[] = [];
      const seconds = String(options.seconds);
      for (const { suffix, rate, target } of loads) {
        const base = { examples, card, seconds: options.seconds + 10 };
        const sending = rate === undefined ? base : { ...base, rate };
        const side = (words: readonly string[]) => (): Promise<Measured> =>
          whileSending(sending, () => measured(words, options.root));
        const ours = side(["node", path.join(subjects, "node-split.js"), card.netns, card.ifname, seconds]);
        const peer = side([
          ...["ip", "netns", "exec", card.netns, "node", path.join(subjects, "node-cap.js"), folder],
          ...[card.ifname, seconds],
        ]);
        const runs = await interleave(options.runs, ours, peer, (text) => {
          options.progress(`node${suffix}: ${text}`);
        });
        const [cpu, delivered] = [`cpu${suffix}`, `delivered${suffix}`];
        const cost = (one: Measured) => ({ value: one.cpu / Math.max(1, one.packets), command: one.command });
        const rateOf = (one: Measured) => ({ value: one.perSecond, command: one.command });
        results.push(
          compare(
            { name: "node", row: cpu, unit: "ns of CPU a packet", better: "less", target },
            runs.ours.map(cost),
            runs.peer.map(cost),
          ),
          compare(
            { name: "node", row: delivered, unit: "packets/s", better: "more", target: null },
            runs.ours.map(rateOf),
            runs.peer.map(rateOf),
          ),
        );
      }
      return results;
    });
  },
};
