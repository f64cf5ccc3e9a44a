// `bifurcate confirm ID`: a split made with --confirm may stay. For when its own terminal cannot be typed into.

import { Command } from "commander";
import { BifurcateError, confirmSplit, listSplits, stateDirectory } from "@bifurcate/control";
import { jsonLine, type Streams } from "../io.js";

/** The command. */
export function confirmCommand(streams: Streams): Command {
  return new Command("confirm")
    .description("keep a split that was made with --confirm")
    .argument("<ID>", "which split; see `bifurcate release`")
    .option("--json", "one JSON document")
    .action((id: string, flags: { json?: true }) => {
      const { splits } = listSplits();
      if (!splits.some((split) => split.id === id)) {
        const names = splits.map((split) => split.id).join(", ");
        throw new BifurcateError("E_NO_SUCH_SPLIT", {
          what: `confirm the split ${id}`,
          why: names === "" ? "there are no splits" : `there are ${names}`,
        });
      }
      confirmSplit(stateDirectory(), id);
      streams.out(flags.json === true ? jsonLine({ confirmed: id }) : `${id} is confirmed\n`);
    });
}
