// `bifurcate devices`: the cards of this machine, what each mechanism can do on them, and why not more.

import { Command } from "commander";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { listDevices, speedOf } from "../device-list.js";
import { jsonLine, type Streams } from "../io.js";
import { renderDevices } from "../render/devices.js";

const HELP = `
Examples:
  bifurcate devices
  bifurcate devices eth0 --json
  bifurcate devices --netns bflab-host
`;

/** The command. */
export function devicesCommand(streams: Streams): Command {
  return new Command("devices")
    .description("list the network cards, what each mechanism can do on them, and why not more")
    .argument("[DEV]", "only this one")
    .option("--netns <NAME>", "look in this network namespace (a name or a path)")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action((ifname: string | undefined, flags: { netns?: string; json?: true }) => {
      const kernel = nativeKernel();
      const netns = openNetns(kernel, flags.netns ?? null);
      try {
        const speed = flags.netns === undefined ? speedOf : () => null;
        const devices = listDevices(kernel, netns, ifname ?? null, speed);
        streams.out(flags.json === true ? jsonLine({ devices }) : renderDevices(devices));
      } finally {
        netns.close();
      }
    });
}
