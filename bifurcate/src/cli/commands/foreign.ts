// `bifurcate foreign DEVICE --flow ... -- PROGRAM`: a lease for a program that knows nothing of us, such as DPDK's.

import { Command } from "commander";
import { TRANSMIT, type Transmit } from "@bifurcate/control/protocol/messages";
import { runInOwnNamespaces } from "../../foreign/namespaces.js";
import { CommandStatus, type Streams } from "../io.js";
import { collect, parseChoice } from "../options.js";

const HELP = `
Examples:
  bifurcate foreign eth0 --flow 'udp dst port 53' -- dpdk-testpmd --in-memory -m 40 --no-pci \\
    --vdev 'net_af_xdp0,iface={interface},use_cni=1,dp_path={socket}' -- --total-num-mbufs=3000 --forward-mode=5tswap
  bifurcate foreign eth0 --flow 'udp dst port 53' -- dpdk-testpmd ... \\
    --vdev 'net_af_xdp0,iface={interface},use_pinned_map=1,dp_path={map}'

The program runs in a user and a network namespace of its own, in which the lease's port is the only card. Nobody
needs a right for that, but the policy has to give the mechanism 'foreign'. docs/broker.md says how it is weaker than our own
clients.
`;

interface ForeignFlags {
  readonly flow: string[];
  readonly transmit: Transmit;
  readonly json?: true;
}

/** The command. */
export function foreignCommand(_streams: Streams): Command {
  return new Command("foreign")
    .description(
      "lease a flow from the broker for a program that makes its own AF_XDP socket, such as DPDK's",
    )
    .argument("<DEVICE>", "the card")
    .argument(
      "<PROGRAM...>",
      "after --: the program, and {interface}, {socket}, {map} where it is told those",
    )
    .requiredOption("--flow <EXPR>", "a pcap-filter(7) expression; may be repeated", collect)
    .option(
      "--transmit <RIGHT>",
      "none, own (answers, checked by the kernel) or raw",
      parseChoice("--transmit", TRANSMIT),
      "own",
    )
    .option("--json", "one JSON object on stderr when the lease is there: stdout is the program's")
    .addHelpText("after", HELP)
    .action(async (device: string, program: string[], flags: ForeignFlags) => {
      const { flow: flows, transmit, json = false } = flags;
      const status = await runInOwnNamespaces({ device, flows, transmit, command: program, json });
      if (status !== 0) throw new CommandStatus(status);
    });
}
