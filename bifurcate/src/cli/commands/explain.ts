// `bifurcate explain EXPR`: how a flow is understood. `bifurcate explain DEV PACKET`: which stage decides what of a packet.

import { Command } from "commander";
import { BifurcateError } from "@bifurcate/control/errors";
import { compileFlow } from "@bifurcate/control/steering/compile-flow";
import { compile } from "@bifurcate/control/steering/rules/compile";
import { explain } from "@bifurcate/control/steering/rules/explain";
import { formatProgram } from "@bifurcate/control/steering/rules/program";
import { jsonLine, type Streams } from "../io.js";
import { explainOnCard, type PacketFlags } from "./explain-packet.js";

const HELP = `
One word is an expression, two are a card and a packet. An expression of two words goes into quotes.

Examples:
  bifurcate explain 'udp dst port 53'
  bifurcate explain 'host 192.0.2.1 and not tcp port 22' --json
  bifurcate explain eth0 'udp 192.0.2.1:4242 > 192.0.2.2:53'
  bifurcate explain eth0 capture.pcap --packet 3
  bifurcate explain eth0 'udp 192.0.2.1:4242 > 192.0.2.2:53' --live --seconds 5

Exit status: 1 when --live finds that packets vanish (E_PACKETS_VANISH).
`;

const indented = (text: string): string => text.replace(/^(?=.)/gm, "  ");

/** The command. */
export function explainCommand(streams: Streams): Command {
  return new Command("explain")
    .description(
      "how a flow is understood and what it becomes; or a packet's way through a card: nothing is changed",
    )
    .argument("<WORDS...>", "a pcap-filter(7) expression, or DEV and PACKET")
    .option("--live", "of a packet: count real ones at each stage, and name the first where they vanish")
    .option("--seconds <N>", "for how long --live counts (2)")
    .option("--packet <N>", "which packet of a capture file (1)")
    .option("--netns <NAME>", "of a packet: the card is in this network namespace (a name or a path)")
    .option("--output <FILE>", "of a packet: write the report to a file")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action(async (words: string[], flags: PacketFlags) => {
      const [ifname = "", packet = ""] = words;
      if (words.length === 2) await explainOnCard(streams, ifname, packet, flags);
      else explainExpression(streams, words.join(" "), flags);
    });
}

function explainExpression(streams: Streams, expression: string, flags: PacketFlags): void {
  const { json, ...others } = flags;
  const [option] = Object.keys(others);
  if (option !== undefined) {
    throw new BifurcateError("E_USAGE", {
      what: `explain '${expression}'`,
      why: `--${option} is about a packet on a card, and this is an expression`,
      next: "Give a card and a packet: bifurcate explain eth0 'udp 192.0.2.1:4242 > 192.0.2.2:53'.",
    });
  }
  const { tree, program } = compile(expression);
  const { ntuple } = compileFlow(expression);
  const rules = "rules" in ntuple ? ntuple.rules.map((rule) => rule.words) : null;
  const noRules = "why" in ntuple ? ntuple.why : null;
  if (json === true) {
    streams.out(
      jsonLine({ expression, words: explain(tree), tree, program, ntuple: { rules, why: noRules } }),
    );
    return;
  }
  streams.out(`'${expression}' means ${explain(tree)}\n`);
  streams.out(`program (classic BPF, ${program.length} instructions)\n${indented(formatProgram(program))}\n`);
  streams.out(
    rules === null
      ? `ntuple rules: none: ${noRules}\n`
      : `ntuple rules, on a card that has them\n${rules.map((rule) => `  ${rule}\n`).join("")}`,
  );
}
