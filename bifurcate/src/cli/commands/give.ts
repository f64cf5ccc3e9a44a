// `bifurcate give`: a card back to the kernel, its interface as it was.

import { Command } from "commander";
import { giveCard, type GivenCard } from "@bifurcate/control/card/give";
import { jsonLine, type Streams } from "../io.js";

const HELP = `
Examples:
  bifurcate give 0000:01:10.0

It takes the card from vfio-pci or a UIO driver, lets the kernel's driver have it, and restores what \`bifurcate take\`
wrote down: the interface's name, MTU, MAC address, addresses and routes. What a crash left half done, it finishes.
`;

/** The command. */
export function giveCommand(streams: Streams): Command {
  return new Command("give")
    .description("give a taken card back to the kernel")
    .argument("<ADDRESS>", "where the card sits, as 0000:01:10.0 (lspci -D)")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action(async (address: string, flags: { readonly json?: true }) => {
      const given = await giveCard(address);
      streams.out(flags.json === true ? jsonLine({ given }) : givenWords(given));
    });
}

function givenWords({ address, driver, interfaces, recorded }: GivenCard): string {
  const back = interfaces.length === 0 ? "" : `; ${interfaces.join(", ")} as before`;
  const note = recorded
    ? ""
    : "\n  it was not taken by this command since the boot: nothing tells how its interface was";
  return `${address}: ${driver ?? "no driver wants it"}${driver === null ? "" : " has it"}${back}${note}\n`;
}
