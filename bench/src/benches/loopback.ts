// Native `reflect` on the loopback device against testpmd macswap on net_null: the polling core by itself.
import path from "node:path";
import { BENCH_PAGES, takeHugepages } from "../hugepages.js";
import { buildExamples, runJson } from "../native.js";
import { testpmd } from "../peers/testpmd.js";
import { compare, interleave, type Result, type Sample } from "../rows.js";
import type { Bench, BenchOptions } from "./bench.js";

/** Rows: which order frames are reused in, whether the header is touched, and how testpmd does the same. */
const rows = [
  { row: "hot", target: 1.5, forward: "macswap", buffers: 8192, cache: undefined },
  { row: "cold", target: null, forward: "macswap", buffers: 65536, cache: 0 },
  { row: "io", target: null, forward: "io", buffers: 8192, cache: undefined },
] as const;

export const loopback: Bench = {
  name: "loopback",
  about: "native reflect on loopback : testpmd macswap on net_null, one core each, burst 32",
  async run(options: BenchOptions): Promise<Result[]> {
    const examples = await buildExamples(options.root, options.progress);
    const giveBack = takeHugepages(BENCH_PAGES);
    try {
      const results: Result[] = [];
      for (const { row, target, forward, buffers, cache } of rows) {
        const ours = async (): Promise<Sample> => {
          const program = path.join(examples, "loopback_bench");
          const words = ["taskset", "-c", "1", program, row, String(options.seconds), "32"];
          const { result, command } = await runJson<{ packets: number; seconds: number }>(
            words,
            options.root,
          );
          return { value: result.packets / result.seconds, command };
        };
        const peer = async (): Promise<Sample> => {
          const run = await testpmd({
            vdev: ["net_null0"],
            forward,
            buffers,
            ...(cache === undefined ? {} : { cache }),
            seconds: options.seconds,
          });
          return { value: run.perSecond, command: run.command };
        };
        const runs = await interleave(options.runs, ours, peer, (text) => {
          options.progress(`loopback/${row}: ${text}`);
        });
        results.push(
          compare({ name: "loopback", row, unit: "packets/s", better: "more", target }, runs.ours, runs.peer),
        );
      }
      return results;
    } finally {
      giveBack();
    }
  },
};
