// `bifurcate release`: lists the splits of this machine, ends one, or undoes what the dead have left.

import { Command } from "commander";
import { BifurcateError } from "@bifurcate/control/errors";
import { nativeKernel } from "@bifurcate/control/native";
import { listSplits, type SplitEntry } from "@bifurcate/control/transaction/registry";
import { release, releaseStale, type Released } from "@bifurcate/control/transaction/release";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import type { ListedLease } from "@bifurcate/control/protocol/messages";
import { jsonLine, renderError, type Streams } from "../io.js";
import { endedWords, type EndedLease } from "../render/ended-lease.js";
import { renderTable } from "../render/table.js";

const HELP = `
Examples:
  bifurcate release                list the splits
  bifurcate release eth0-1a2b3c    end this one; its owner closes it in good order
  bifurcate release lease-1a2b3c4d take a lease back from its client (see bifurcate leases)
  bifurcate release --stale        undo what killed processes and their guardians have left
`;

interface ReleaseFlags {
  readonly stale?: true;
  readonly json?: true;
}

/** The command. */
export function releaseCommand(streams: Streams): Command {
  return new Command("release")
    .description("list the splits, end one, or undo what the dead have left")
    .argument("[ID]", "which split")
    .option("--stale", "undo all splits whose processes are dead")
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action(async (id: string | undefined, flags: ReleaseFlags) => {
      const json = flags.json === true;
      if (id !== undefined && flags.stale === true) {
        throw new BifurcateError("E_USAGE", {
          what: `release ${id}`,
          why: "an ID and --stale exclude each other",
        });
      }
      if (id?.startsWith("lease-") === true) {
        const ended = await releaseLease(id);
        streams.out(json ? jsonLine({ released: [ended], errors: [] }) : endedWords(ended));
      } else if (id !== undefined) {
        const released = await release(nativeKernel(), id);
        streams.out(json ? jsonLine({ released: [released], errors: [] }) : releasedWords(released));
      } else if (flags.stale === true) {
        await stale(streams, json);
      } else {
        list(streams, json);
      }
    });
}

/** Takes a lease back, and looks what there is of it then. @throws E_NO_BROKER, E_NO_SUCH_LEASE */
async function releaseLease(id: string): Promise<EndedLease> {
  const broker = await BrokerConnection.connect();
  try {
    const before = await find(id);
    // Also of one that is not in the list: the broker says so, and writes down who asked.
    await broker.release(id);
    const after = await find(id);
    const { device = null, mechanism = null, transmit = null } = before ?? after ?? {};
    return { id, device, mechanism, transmit, state: after === null ? null : (after?.state ?? "free") };
  } finally {
    broker.close();
  }
}

/**
 * The lease in the broker's list; undefined: it is not there; null: there is no list to be had, for which a release does not
 * fail. Over a connection of its own, since one that fails closes it.
 */
async function find(id: string): Promise<ListedLease | undefined | null> {
  try {
    const broker = await BrokerConnection.connect();
    try {
      return (await broker.list()).find((each) => each.id === id);
    } finally {
      broker.close();
    }
  } catch {
    return null;
  }
}

function releasedWords({ id, device, report }: Released): string {
  const lines = [`${id}: ${device} is released\n`];
  for (const undone of report?.undone ?? []) lines.push(`  undone: ${undone}\n`);
  for (const left of report?.left ?? []) lines.push(`  left alone: ${left}\n`);
  if (report?.deviceGone === true) lines.push("  the device no longer exists\n");
  return lines.join("");
}

async function stale(streams: Streams, json: boolean): Promise<void> {
  const { released, errors } = await releaseStale(nativeKernel());
  if (json) {
    streams.out(jsonLine({ released, errors: errors.map((error) => error.toJSON().error) }));
  } else {
    for (const each of released) streams.out(releasedWords(each));
    for (const error of errors) streams.err(renderError(error, false));
    if (released.length === 0 && errors.length === 0) streams.out("nothing is stale\n");
  }
  // What was set aside is reported and done with; what could not be undone is a failure.
  const failed = errors.find((error) => error.code !== "E_JOURNAL_CORRUPT");
  if (failed !== undefined) throw failed;
}

function stateWords(split: SplitEntry): string {
  if (split.confirmBy === null || split.state !== "live") return split.state;
  return `live, undoes itself at ${new Date(split.confirmBy).toISOString()} unless confirmed`;
}

function list(streams: Streams, json: boolean): void {
  const { splits, errors } = listSplits();
  if (json) {
    streams.out(jsonLine({ splits, errors: errors.map((error) => error.toJSON().error) }));
    return;
  }
  for (const error of errors) streams.err(renderError(error, false));
  if (splits.length === 0) {
    streams.out("there are no splits\n");
    return;
  }
  const rows = splits.map((split) => [
    split.id,
    split.device,
    `${split.pid}`,
    split.path.backend,
    split.path.queues.join(","),
    stateWords(split),
    split.flows.join(" | "),
  ]);
  const titles = ["id", "device", "pid", "backend", "queues", "state", "flows"];
  streams.out(
    renderTable(
      titles.map((title) => ({ title, right: title === "pid" })),
      rows,
    ),
  );
}
