// Each form of handler in TypeScript against the raw index loop over the same memory, before and after a detach.
import path from "node:path";
import { runJson } from "../native.js";
import { compare, interleave, type Result, type Sample } from "../rows.js";
import type { Bench, BenchOptions } from "./bench.js";

export const api: Bench = {
  name: "api",
  about:
    "cursor, frame objects and byte arrays : a hand-written index loop, before and after a detach elsewhere",
  async run(options: BenchOptions): Promise<Result[]> {
    const subject = path.join(options.root, "bench", "dist", "subjects", "api.js");
    const sample = async (form: string, state: string): Promise<Sample> => {
      const words = ["taskset", "-c", "1", "node", subject, form, state, String(options.seconds)];
      const { result, command } = await runJson<{ packets: number; seconds: number }>(words, options.root);
      return { value: result.packets / result.seconds, command };
    };
    const results: Result[] = [];
    for (const state of ["fresh", "detached"]) {
      for (const form of ["cursor", "frames", "bytes"]) {
        const row = `${form} ${state}`;
        const runs = await interleave(
          options.runs,
          () => sample(form, state),
          () => sample("raw", "fresh"),
          (text) => {
            options.progress(`api/${row}: ${text}`);
          },
        );
        const of = { name: "api", row, unit: "frames/s", better: "more", target: null } as const;
        results.push(compare(of, runs.ours, runs.peer));
      }
    }
    return results;
  },
};
