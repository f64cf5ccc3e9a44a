// Receive and drop by AF_XDP on veth, against testpmd's net_af_xdp behind the same sender.
import path from "node:path";
import { BENCH_PAGES, takeHugepages } from "../hugepages.js";
import { buildExamples } from "../native.js";
import { testpmd } from "../peers/testpmd.js";
import { rateAndCpu, receive, type Measured } from "../receive.js";
import { onWire, whileSending } from "../wire.js";
import { interleave, type Result } from "../rows.js";
import type { Bench, BenchOptions } from "./bench.js";

export const afXdp: Bench = {
  name: "af_xdp",
  about: "veth receive-and-drop : testpmd net_af_xdp, same sender; packets a second, and CPU time a packet",
  async run(options: BenchOptions): Promise<Result[]> {
    const examples = await buildExamples(options.root, options.progress);
    const giveBack = takeHugepages(BENCH_PAGES);
    try {
      return await onWire("bxdp", async (card) => {
        const sending = { examples, card, seconds: options.seconds + 10 };
        const ours = (): Promise<Measured> =>
          whileSending(sending, () =>
            receive(path.join(examples, "veth_bench"), card, options.seconds, options.root),
          );
        const peer = (): Promise<Measured> =>
          whileSending(sending, () =>
            testpmd({
              vdev: [`net_af_xdp0,iface=${card.ifname},start_queue=0,queue_count=1`],
              forward: "rxonly",
              netns: card.netns,
              seconds: options.seconds,
            }),
          );
        const runs = await interleave(options.runs, ours, peer, (text) => {
          options.progress(`af_xdp: ${text}`);
        });
        return rateAndCpu("af_xdp", "", 1.0, 1.0, runs.ours, runs.peer);
      });
    } finally {
      giveBack();
    }
  },
};
