// `reflect` in TypeScript, cursor form, on the loopback device against testpmd macswap on net_null.
import path from "node:path";
import { BENCH_PAGES, takeHugepages } from "../hugepages.js";
import { runJson } from "../native.js";
import { testpmd } from "../peers/testpmd.js";
import { compare, interleave, type Result, type Sample } from "../rows.js";
import type { Bench, BenchOptions } from "./bench.js";

const rows = [
  { row: "hot", target: 0.9, buffers: 8192, cache: undefined },
  { row: "cold", target: null, buffers: 65536, cache: 0 },
] as const;

export const loopbackTs: Bench = {
  name: "loopback-ts",
  about: "reflect in TypeScript (cursor form, in a worker) on loopback : testpmd macswap on net_null",
  async run(options: BenchOptions): Promise<Result[]> {
    const subject = path.join(options.root, "bench", "dist", "subjects", "loopback-ts.js");
    const giveBack = takeHugepages(BENCH_PAGES);
    try {
      const results: Result[] = [];
      for (const { row, target, buffers, cache } of rows) {
        const ours = async (): Promise<Sample> => {
          const words = ["node", subject, row, String(options.seconds)];
          const { result, command } = await runJson<{ packets: number; seconds: number }>(
            words,
            options.root,
          );
          return { value: result.packets / result.seconds, command };
        };
        const peer = async (): Promise<Sample> => {
          const run = await testpmd({
            vdev: ["net_null0"],
            forward: "macswap",
            buffers,
            ...(cache === undefined ? {} : { cache }),
            seconds: options.seconds,
          });
          return { value: run.perSecond, command: run.command };
        };
        const runs = await interleave(options.runs, ours, peer, (text) => {
          options.progress(`loopback-ts/${row}: ${text}`);
        });
        const of = { name: "loopback-ts", row, unit: "packets/s", better: "more", target } as const;
        results.push(compare(of, runs.ours, runs.peer));
      }
      return results;
    } finally {
      giveBack();
    }
  },
};
