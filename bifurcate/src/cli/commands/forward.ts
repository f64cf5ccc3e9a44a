// `bifurcate forward A B`: joins two ports in both directions, such as a split of the host's card and a VM.

import { BifurcateError } from "@bifurcate/control/errors";
import { Command } from "commander";
import { checkSpec, isSpec } from "../../spec.js";
import { checkCores, checkInterfaces } from "../beforehand.js";
import { addCardOptions, addRunOptions, readCardFlags, type CardFlags } from "../card-flags.js";
import { runForward } from "../forward-run.js";
import type { Streams } from "../io.js";

const HELP = `
Examples:
  bifurcate forward eth0 vhost-user:/run/vm0.sock,server --flow 'ether dst 52:54:00:12:34:56 or arp dst host 192.0.2.7'
  bifurcate forward eth0 eth1 --flow all
  bifurcate forward vhost-user:/run/vm0.sock,server vhost-user:/run/vm1.sock,server

An interface is split: --flow says what is taken of it, everything else stays with the kernel. What one end receives,
the other sends. docs/vhost-user.md: a VM served by a split flow of the host's card.
With --json stdout has one object a line: {"event":"forward"}, then {"event":"rates"} each second, then {"event":"end"}.
`;

interface ForwardFlags extends CardFlags {
  readonly seconds?: number;
  readonly cores?: number[];
  readonly json?: true;
}

/** The command. */
export function forwardCommand(streams: Streams): Command {
  const command = new Command("forward")
    .description("join two ports in both directions: a split of a card, a VM's socket")
    .argument("<A>", "an interface, which is split by --flow, or what `bifurcate open` takes")
    .argument("<B>", "the same");
  return addRunOptions(addCardOptions(command))
    .option("--json", "one JSON object a line")
    .addHelpText("after", HELP)
    .action(forward.bind(null, streams));
}

async function forward(streams: Streams, a: string, b: string, flags: ForwardFlags): Promise<void> {
  const what = `forward ${a} ${b}`;
  const bad = (why: string): BifurcateError => new BifurcateError("E_BAD_OPTION", { what, why });
  if (a === b && a !== "loopback") throw bad("both ends are the same");
  const interfaces = [a, b].filter((end) => !isSpec(end));
  for (const end of [a, b].filter(isSpec)) checkSpec(end);
  const takes = flags.flow !== undefined;
  if (takes && interfaces.length === 0) throw bad("--flow is for an interface, and neither end is one");
  const card = interfaces.length > 0 ? readCardFlags(what, flags) : null;
  checkCores(flags.cores);
  checkInterfaces(interfaces, card?.netns ?? null);
  await runForward(
    { ends: [a, b], card, cores: flags.cores, seconds: flags.seconds ?? null, json: flags.json ?? false },
    streams,
  );
}
