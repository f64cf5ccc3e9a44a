// RDMA devices on the two ends of a wire: those that stand there, or software ones (rxe) that are made for the measurement.

import type { Machine } from "@bifurcate/control/doctor/machine";
import { BifurcateError } from "@bifurcate/control/errors";
import { netnsPath } from "@bifurcate/control/prepare";
import { run } from "@bifurcate/lab/tools";
import type { Means } from "./means.js";
import type { Wire, WireEnd } from "./phases.js";

type Verbs = Extract<Means, { kind: "verbs" }>;

/** How datagrams are measured on a wire; undefined where an end has no RDMA device. Interfaces of all namespaces have different names here. */
export function overRdma({ card, peer }: Wire, devices: Machine["rdma"]): Verbs | undefined {
  const on = (end: WireEnd) => devices.find(({ ifname }) => ifname === end.ifname)?.name;
  const [ours, theirs] = [on(card), on(peer)];
  if (ours === undefined || theirs === undefined || ours === theirs) return undefined;
  return { kind: "verbs", card: ours, peer: theirs };
}

/** Runs `rdma` (iproute2) in a namespace. @throws E_MISSING_TOOL, E_MEASUREMENT with what it said */
async function rdma(netns: string | null, ...words: readonly string[]): Promise<void> {
  const inside = netns === null ? [] : ["nsenter", `--net=${netnsPath(netns)}`];
  const [program, ...rest] = [...inside, "rdma", ...words];
  const { status, stderr } = await run(program!, rest);
  if (status === 0) return;
  throw new BifurcateError("E_MEASUREMENT", {
    what: `rdma ${words.join(" ")}`,
    why: stderr.trim() || `it ended with status ${status}`,
  });
}

/**
 * Calls `use` with RDMA devices at both ends; what is not there is made of the interfaces in software, and removed.
 * @throws E_MISSING_TOOL, E_MEASUREMENT where none can be made; what `use` throws.
 */
export async function withRdma<T>(
  wire: Wire,
  devices: Machine["rdma"],
  use: (means: Verbs) => Promise<T>,
): Promise<T> {
  const there = overRdma(wire, devices);
  if (there !== undefined) return use(there);
  const made: { readonly end: WireEnd; readonly name: string }[] = [];
  try {
    for (const [n, end] of [wire.card, wire.peer].entries()) {
      const name = `bfrxe${n}_${process.pid}`;
      await rdma(end.netns, "link", "add", name, "type", "rxe", "netdev", end.ifname);
      made.push({ end, name });
    }
    return await use({ kind: "verbs", card: made[0]!.name, peer: made[1]!.name });
  } finally {
    for (const { end, name } of made.reverse()) await rdma(end.netns, "link", "delete", name);
  }
}
