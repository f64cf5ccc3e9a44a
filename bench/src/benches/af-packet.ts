// Receive and drop by AF_PACKET on veth, against testpmd's net_af_packet and against tcpdump -w /dev/null.
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { LabCard } from "@bifurcate/lab";
import { Child, cpuTime } from "../child.js";
import { BENCH_PAGES, takeHugepages } from "../hugepages.js";
import { buildExamples } from "../native.js";
import { testpmd } from "../peers/testpmd.js";
import { measured, rateAndCpu, type Measured } from "../receive.js";
import { onWire, whileSending } from "../wire.js";
import { interleave, type Result } from "../rows.js";
import type { Bench, BenchOptions } from "./bench.js";

/** Captures to /dev/null for the given time; the count is tcpdump's own "packets captured". */
async function tcpdump(card: LabCard, seconds: number): Promise<Measured> {
  const child = new Child("ip", [
    ...["netns", "exec", card.netns, "taskset", "-c", "1"],
    ...["tcpdump", "-i", card.ifname, "-n", "-w", "/dev/null"],
  ]);
  try {
    await child.saw(/listening on/);
    const began = process.hrtime.bigint();
    const before = cpuTime(child.pid);
    await sleep(seconds * 1000);
    const cpu = cpuTime(child.pid) - before;
    const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
    await child.end();
    const packets = Number(/(\d+) packets captured/.exec(child.output)?.[1] ?? NaN);
    if (Number.isNaN(packets)) throw new Error(`tcpdump gave no count:\n${child.output}`);
    return { packets, perSecond: packets / elapsed, cpu, command: child.line };
  } finally {
    await child.end();
  }
}

export const afPacket: Bench = {
  name: "af_packet",
  about: "veth receive-and-drop : testpmd net_af_packet, and : tcpdump -w /dev/null, same sender",
  async run(options: BenchOptions): Promise<Result[]> {
    const subject = path.join(options.root, "bench", "dist", "subjects", "native-split.js");
    const examples = await buildExamples(options.root, options.progress);
    const giveBack = takeHugepages(BENCH_PAGES);
    try {
      return await onWire("bpkt", async (card) => {
        const sending = { examples, card, seconds: options.seconds + 10 };
        const ours = (): Promise<Measured> =>
          whileSending(sending, () =>
            measured(
              ["node", subject, card.netns, card.ifname, "af_packet", String(options.seconds)],
              options.root,
            ),
          );
        const peers = [
          {
            prefix: "testpmd ",
            target: 1.0,
            run: () =>
              testpmd({
                vdev: [`net_af_packet0,iface=${card.ifname}`],
                forward: "rxonly",
                netns: card.netns,
                seconds: options.seconds,
              }),
          },
          { prefix: "tcpdump ", target: 2.0, run: () => tcpdump(card, options.seconds) },
        ];
        const results: Result[] = [];
        for (const { prefix, target, run } of peers) {
          const runs = await interleave(
            options.runs,
            ours,
            () => whileSending(sending, run),
            (text) => {
              options.progress(`af_packet : ${prefix}${text}`);
            },
          );
          results.push(...rateAndCpu("af_packet", prefix, target, null, runs.ours, runs.peer));
        }
        return results;
      });
    } finally {
      giveBack();
    }
  },
};
