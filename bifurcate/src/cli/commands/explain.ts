// `bifurcate explain EXPR`: how a flow is understood, the program that decides about each frame, and the card's rules.

import { Command } from "commander";
import { compileFlow } from "@bifurcate/control";
import { compile } from "@bifurcate/control/steering/rules/compile";
import { explain } from "@bifurcate/control/steering/rules/explain";
import { formatProgram } from "@bifurcate/control/steering/rules/program";
import { jsonLine, type Streams } from "../io.js";

const HELP = `
Examples:
  bifurcate explain 'udp dst port 53'
  bifurcate explain 'host 192.0.2.1 and not tcp port 22' --json
`;

const indented = (text: string): string => text.replace(/^(?=.)/gm, "  ");

/** The command. */
export function explainCommand(streams: Streams): Command {
  return new Command("explain")
    .description("how a flow is understood, and what it becomes: nothing is changed, no rights are needed")
    .argument("<EXPR...>", "a pcap-filter(7) expression, or all")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action((words: string[], flags: { json?: true }) => {
      const expression = words.join(" ");
      const { tree, program } = compile(expression);
      const { ntuple } = compileFlow(expression);
      const rules = "rules" in ntuple ? ntuple.rules.map((rule) => rule.words) : null;
      const noRules = "why" in ntuple ? ntuple.why : null;
      if (flags.json === true) {
        streams.out(
          jsonLine({ expression, words: explain(tree), tree, program, ntuple: { rules, why: noRules } }),
        );
        return;
      }
      streams.out(`'${expression}' means ${explain(tree)}\n`);
      streams.out(
        `program (classic BPF, ${program.length} instructions)\n${indented(formatProgram(program))}\n`,
      );
      streams.out(
        rules === null
          ? `ntuple rules: none: ${noRules}\n`
          : `ntuple rules, on a card that has them\n${rules.map((rule) => `  ${rule}\n`).join("")}`,
      );
    });
}
