// The leases of a broker on one interface, as its records say: for whoever looks at a card from outside of the broker.
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../facts/processes.js";
import type { Link, ProgramOwner } from "../kernel.js";
import { readRecords, type LeaseRecord } from "./record.js";
import { steers } from "./state.js";

/** The name in the kernel of the program that a broker has on a card. */
export const BROKER_PROGRAM = "bifurcated";

/** What a broker has on an interface. */
export interface BrokerHold {
  /** Leases that are granted; null where their records are not for this user to read. */
  readonly leases: readonly LeaseRecord[] | null;
  /** The interface is no card of leases, but the port of this one. */
  readonly portOf: LeaseRecord | null;
}

/**
 * What a broker has on the interface; null where the program there is none of a broker's.
 * @param directory The broker's state: records are in its folder `leases`.
 */
export function brokerOn(
  directory: string,
  netnsInode: number,
  link: Pick<Link, "index" | "name">,
  program: { readonly owner: ProgramOwner | null } | null,
): BrokerHold | null {
  if (program === null) return null;
  const leases = readLeases(join(directory, "leases"), netnsInode);
  const portOf = leases?.find(({ names }) => [names.near, names.far].includes(link.name)) ?? null;
  const here = leases?.filter(({ card }) => card.ifindex === link.index) ?? null;
  // Where holders of programs may not be asked for, the records alone tell.
  const ours = program.owner === null ? (here?.length ?? 0) > 0 : program.owner.name === BROKER_PROGRAM;
  return ours || portOf !== null ? { leases: here, portOf } : null;
}

function readLeases(folder: string, netnsInode: number): LeaseRecord[] | null {
  try {
    if (existsSync(folder)) accessSync(folder, constants.R_OK | constants.X_OK);
  } catch {
    return null;
  }
  const boot = bootId();
  return readRecords(folder).records.filter(
    (record) => record.bootId === boot && record.netnsInode === netnsInode && steers(record.state),
  );
}
