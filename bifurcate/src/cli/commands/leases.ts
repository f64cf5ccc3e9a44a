// `bifurcate leases`: what the broker has leased to whom.

import { Command } from "commander";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import { jsonLine, type Streams } from "../io.js";
import { renderTable } from "../render/table.js";

const HELP = `
Examples:
  bifurcate leases                      your leases; root sees everybody's
  bifurcate leases --json
  bifurcate release lease-1a2b3c4d      takes one back; its client gets an error that says so

The broker is looked for at /run/bifurcate/broker.sock, or where BIFURCATE_BROKER says.
`;

/** The command. */
export function leasesCommand(streams: Streams): Command {
  return new Command("leases")
    .description("list what the broker has leased to whom")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action(async (flags: { readonly json?: true }) => {
      const broker = await BrokerConnection.connect();
      try {
        const leases = await broker.list();
        if (flags.json === true) return streams.out(jsonLine({ leases }));
        if (leases.length === 0) return streams.out("there are no leases\n");
        const titles = ["id", "device", "user", "pid", "transmit", "pass", "state", "flows"];
        const rows = leases.map((lease) => [
          lease.id,
          lease.device,
          `${lease.uid}`,
          `${lease.pid}`,
          lease.transmit,
          lease.pass ? "yes" : "no",
          lease.state,
          lease.flows.join(" | "),
        ]);
        streams.out(
          renderTable(
            titles.map((title) => ({ title, right: title === "user" || title === "pid" })),
            rows,
          ),
        );
      } finally {
        broker.close();
      }
    });
}
