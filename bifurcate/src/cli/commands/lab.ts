// `bifurcate lab up|down|status`: namespaces with a multi-queue card to try things on; `lab guest` stands beside it.

import { Command } from "commander";
import { labDown, labList, labUp, type Lab } from "@bifurcate/lab/network";
import { jsonLine, type Streams } from "../io.js";
import { whole } from "../options.js";
import { renderTable } from "../render/table.js";
import { Stop } from "../stop.js";
import { labFetchCommand, labGuestCommand } from "./lab-guest.js";

const DEFAULT_NAME = "lab";

const UP_HELP = `
Examples:
  bifurcate lab up                                  the namespaces bflab-host (with nic0) and bflab-peer
  bifurcate lab up two --clients 2 --queues 8       two cards, to forward from one to the other
  bifurcate lab up big --mtu 9000
  bifurcate lab down                                takes it away again
`;

interface LabFlags {
  readonly json?: true;
  readonly clients: string;
  readonly queues: string;
  readonly mtu: string;
}

/** What to type next in a lab that has just come up. */
function renderLab(lab: Lab): string {
  const ends = lab.cards.flatMap((card) => [card, card.peer]);
  const rows = ends.map((end) => [end.netns, end.ifname, end.mac, end.v4, end.v6]);
  const titles = ["namespace", "interface", "MAC", "IPv4", "IPv6"].map((title) => ({ title }));
  const [card] = lab.cards;
  if (card === undefined) return "";
  return [
    renderTable(titles, rows),
    "\ntry:\n",
    `  bifurcate split ${card.ifname} --netns ${card.netns} --flow 'udp dst port 53' --do run=examples/dns.ts\n`,
    `  ip netns exec ${card.peer.netns} dig @${card.v4} www.bifurcate.test\n`,
    `  bifurcate lab down ${lab.name}\n`,
  ].join("");
}

/** The command with its subcommands. */
export function labCommand(streams: Streams): Command {
  const lab = new Command("lab").description(
    "namespaces with a multi-queue card, or a guest with real NIC drivers, to try things on",
  );

  lab
    .command("up")
    .description("make a lab: a host with a card nic0, and a client at the other end of the wire")
    .argument("[NAME]", "1 to 8 lower-case letters and digits", DEFAULT_NAME)
    .option("--clients <N>", "cards and client namespaces, 1 or 2", "1")
    .option("--queues <N>", "receive and transmit queues of each card", "4")
    .option("--mtu <BYTES>", "MTU of the wires", "1500")
    .option("--json", "one JSON document")
    .addHelpText("after", UP_HELP)
    .action(async (name: string, flags: LabFlags) => {
      const clients = whole("--clients", flags.clients, 1, 2) === 2 ? 2 : 1;
      const queues = whole("--queues", flags.queues, 1, 64);
      const mtu = whole("--mtu", flags.mtu, 1280, 65535);
      const stop = new Stop();
      const made = await labUp({ name, clients, queues, mtu, signal: stop.signal }).finally(() =>
        stop.dispose(),
      );
      streams.out(flags.json === true ? jsonLine(made) : renderLab(made));
    });

  lab
    .command("down")
    .description("remove a lab, or what a crash left of it")
    .argument("[NAME]", "which lab", DEFAULT_NAME)
    .option("--json", "one JSON document")
    .action(async (name: string, flags: LabFlags) => {
      const { removed, processes } = await labDown(name);
      if (flags.json === true) {
        streams.out(jsonLine({ name, removed, processes }));
        return;
      }
      streams.out(removed.length === 0 ? "nothing was left of it\n" : `removed ${removed.join(", ")}\n`);
      if (processes.length > 0) {
        streams.err(
          `still running in it, and keeping its namespace until they end: ${processes.join(", ")}\n`,
        );
      }
    });

  lab
    .command("status")
    .description("list the labs of this machine, those included of which a crash left only parts")
    .option("--json", "one JSON document")
    .action(async (flags: LabFlags) => {
      const labs = await labList();
      if (flags.json === true) {
        streams.out(jsonLine({ labs }));
        return;
      }
      if (labs.length === 0) {
        streams.out("no lab is up\n");
        return;
      }
      const rows = labs.map((each) => [
        each.name,
        each.whole ? "up" : "parts are left",
        each.namespaces.map(({ name, exists }) => (exists ? name : `(${name})`)).join(" "),
        each.made,
      ]);
      streams.out(
        renderTable(
          ["name", "state", "namespaces", "made"].map((title) => ({ title })),
          rows,
        ),
      );
    });
  lab.addCommand(labGuestCommand(streams));
  lab.addCommand(labFetchCommand(streams));
  return lab;
}
