// `bifurcate open SPEC --do ...`: a card taken whole, a VM's end of a vhost-user socket, and what is done with it.

import { BifurcateError } from "@bifurcate/control/errors";
import { Command } from "commander";
import { checkSpec } from "../../spec.js";
import { readAction, runAction, type ActionRequest } from "../action-run.js";
import { checkAction } from "../beforehand.js";
import { addRunOptions } from "../card-flags.js";
import { jsonLine, type Streams } from "../io.js";
import { collect, parseAction, parseFile, type Action } from "../options.js";
import { runPorts } from "../run-ports.js";
import { checkOutputs } from "../split-flags.js";

const HELP = `
Examples:
  bifurcate open vhost-user:/run/vm0.sock,server --do reflect        a VM attaches to the socket
  bifurcate open vhost-user:/run/vm0.sock,server,queues=4 --do run=examples/firewall.ts
  bifurcate open virtio-user:/run/device.sock --do forward=eth1      the driver's end: attaches to a device
  bifurcate open pci:0000:01:10.0,via=vfio --do run=examples/dns.ts   a card that \`bifurcate take\` took
  bifurcate open verbs:mlx5_0 --flow 'udp dst port 53' --do run=examples/dns.ts   queue pairs of an RDMA card
  bifurcate open verbs:rxe0,server=192.0.2.1:7471 --do reflect        datagrams, to and from who says peer= there
  bifurcate open loopback --do reflect --seconds 5

The keys of a spec: docs/vhost-user.md, docs/direct-access.md, docs/verbs.md. With --json stdout has one object a line: {"event":"open"}, then
{"event":"rates"} each second, then {"event":"end"}.
`;

interface OpenFlags {
  readonly do?: Action;
  readonly output?: string[];
  readonly seconds?: number;
  readonly cores?: number[];
  readonly flow?: string[];
  readonly tap?: string;
  readonly exception?: string | true;
  readonly netns?: string;
  readonly json?: true;
}

/** The command. */
export function openCommand(streams: Streams): Command {
  const command = new Command("open")
    .description(
      "open a card taken whole, an end of a vhost-user socket, queue pairs of an RDMA device, or loopback",
    )
    .argument(
      "<SPEC>",
      "pci:ADDRESS[,via=vfio][,queues=N], vhost-user:PATH[,server][,queues=N], virtio-user:PATH[,server][,queues=N], verbs:DEVICE[,server=ADDRESS:PORT|,peer=ADDRESS:PORT] or loopback",
    )
    .option(
      "--do <ACTION>",
      "drop, count, reflect, forward=TO (an interface or a spec), or run=FILE; count when left out",
      parseAction,
    )
    .option("--output <TO>", "with run=FILE: what the handler sends out of as well; may be repeated", collect)
    .option("--tap <FILE>", "write every received and sent frame to FILE (pcapng)", (file: string) =>
      parseFile("--tap", file),
    )
    .option(
      "--flow <EXPR>",
      "of a card: what the handler sees, the rest is passed; of verbs: what the card's flow rules bring here; may be repeated",
      collect,
    )
    .option(
      "--exception [NAME]",
      "of a card: the kernel stays reachable on it, through a TAP of that name, or of the name its interface had",
    )
    .option("--netns <NAME>", "the interfaces to send out of live in this network namespace");
  return addRunOptions(command)
    .option("--json", "one JSON object a line")
    .addHelpText("after", HELP)
    .action(open.bind(null, streams));
}

async function open(streams: Streams, spec: string, flags: OpenFlags): Promise<void> {
  checkSpec(spec);
  const { cores, seconds = null, tap, flow: flows, exception } = flags;
  if (tap !== undefined && spec.startsWith("loopback")) {
    const why = "the loopback device makes its frames of nothing: there is nothing to see";
    throw new BifurcateError("E_BAD_OPTION", { what: `read --tap '${tap}'`, why });
  }
  const request: ActionRequest = {
    action: flags.do ?? { kind: "count" },
    outputs: flags.output ?? [],
    cores,
    netns: flags.netns ?? null,
    json: flags.json ?? false,
  };
  checkOutputs(request.action, request.outputs);
  await checkAction(request);
  const { json } = request;
  await runPorts({ json, seconds, read: readAction }, streams, async (session) => {
    const port = session.keep(
      await session.api.open(spec, { onWarning: session.warn, tap, flows, exception }),
    );
    session.show((output, warnings) => {
      if (json) {
        const { name, path } = port;
        streams.out(jsonLine({ event: "open", pid: process.pid, name, path, warnings }));
        return;
      }
      output.introducePort(port);
      streams.out("  Ctrl-C ends it\n");
    });
    await runAction(session, port, request);
  });
}
