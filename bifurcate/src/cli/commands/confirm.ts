// `bifurcate confirm ID`: a split made with --confirm may stay. For when its own terminal cannot be typed into.

import { Command } from "commander";
import { BifurcateError } from "@bifurcate/control/errors";
import { stateDirectory } from "@bifurcate/control/transaction/journal";
import { listSplits } from "@bifurcate/control/transaction/registry";
import { confirmSplit } from "@bifurcate/control/transaction/transaction";
import { jsonLine, type Streams } from "../io.js";

/** The command. */
export function confirmCommand(streams: Streams): Command {
  return new Command("confirm")
    .description("keep a split that was made with --confirm")
    .argument("<ID>", "which split; see `bifurcate release`")
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      "\nExamples:\n  bifurcate confirm eth0-1a2b3c    the name that `bifurcate release` lists\n",
    )
    .action((id: string, flags: { json?: true }) => {
      const { splits } = listSplits();
      const split = splits.find((each) => each.id === id);
      if (split === undefined) {
        const names = splits.map((each) => each.id).join(", ");
        throw new BifurcateError("E_NO_SUCH_SPLIT", {
          what: `confirm the split ${id}`,
          why: names === "" ? "there are no splits" : `there are ${names}`,
        });
      }
      confirmSplit(stateDirectory(), id);
      const words = split.confirmBy === null ? "needs no confirmation (any more)" : "is confirmed";
      streams.out(flags.json === true ? jsonLine({ confirmed: id }) : `${id} ${words}\n`);
    });
}
