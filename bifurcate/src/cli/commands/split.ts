// `bifurcate split DEV --flow EXPR --do ...`: gives a flow to user space, shows what comes, and puts everything back.

import { Command } from "commander";
import { nativeKernel } from "@bifurcate/control/native";
import { prepareSplit } from "@bifurcate/control/prepare";
import { renderPlan } from "@bifurcate/control/steering/render";
import { checkAction } from "../beforehand.js";
import { jsonLine, type Streams } from "../io.js";
import { addSplitOptions, readSplitFlags, type SplitCommand, type SplitFlags } from "../split-flags.js";
import { runSplit } from "../split-run.js";

const HELP = `
Examples:
  bifurcate split eth0 --flow 'udp dst port 53' --do run=examples/dns.ts
  bifurcate split eth0 --flow 'udp dst port 53' --dry-run           print the plan, change nothing
  bifurcate split eth0 --flow 'udp port 4789' --do count --seconds 10
  bifurcate split eth0 --flow 'ip and not tcp port 22' --do run=examples/firewall.ts --confirm 30s
  bifurcate split eth0 --flow all --zero-copy require --do forward=eth1
  bifurcate split nic0 --netns bflab-host --flow 'icmp or icmp6' --do reflect --json

Everything else stays with the kernel. Ctrl-C ends the split, and the card is as it was.
With --json stdout has one object a line: {"event":"split"}, then {"event":"rates"} each second, then {"event":"end"}.
`;

/** The command. */
export function splitCommand(streams: Streams): Command {
  const command = new Command("split")
    .description("give chosen flows of a card to user space; the kernel keeps the rest")
    .argument("<DEV>", "the network interface");
  return addSplitOptions(command)
    .addHelpText("after", HELP)
    .action(async (device: string, flags: SplitFlags) => {
      const request = readSplitFlags(device, flags);
      await checkAction(request);
      if (request.dryRun) printPlan(request, streams);
      else await runSplit(request, streams);
    });
}

function printPlan(request: SplitCommand, streams: Streams): void {
  const kernel = nativeKernel();
  const { plan, netns } = prepareSplit(kernel, {
    ifname: request.device,
    flows: request.flows,
    queues: request.queues,
    backend: request.backend,
    zeroCopy: request.zeroCopy,
    steering: request.lease ? "lease" : "auto",
    force: request.force,
    tap: request.tap !== false,
    confirmSeconds: request.confirmSeconds,
    netns: request.netns,
    metadata: request.metadata,
  });
  netns.close();
  streams.out(request.json ? jsonLine({ plan }) : `${renderPlan(plan)}\n`);
}
