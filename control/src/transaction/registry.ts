// Which splits there are: every journal with whether its owner and its guardian live.
import type { BifurcateError } from "../errors.js";
import type { OtherSplit } from "../facts/facts.js";
import { bootId, isAlive } from "../facts/processes.js";
import { readJournals, stateDirectory, type Journal } from "./journal.js";

/** One split as `bifurcate release` lists it. */
export interface SplitEntry {
  readonly id: string;
  readonly device: string;
  readonly ifindex: number;
  readonly netnsInode: number;
  readonly flows: readonly string[];
  readonly pid: number;
  readonly created: string;
  /** live: its owner runs. undoing: only its guardian does. stale: neither; `release --stale` undoes it. */
  readonly state: "live" | "undoing" | "stale";
  readonly path: Journal["plan"]["path"];
  /** Not yet confirmed: when it undoes itself, milliseconds since 1970. */
  readonly confirmBy: number | null;
}

/** How the processes of a journal are. */
export function stateOf(journal: Journal): SplitEntry["state"] {
  if (journal.bootId !== bootId()) return "stale";
  if (isAlive(journal.owner)) return "live";
  return journal.guardian !== null && isAlive(journal.guardian) ? "undoing" : "stale";
}

/** All splits of a state directory, and the journals that cannot be read. */
export function listSplits(directory = stateDirectory()): { splits: SplitEntry[]; errors: BifurcateError[] } {
  const { journals, errors } = readJournals(directory);
  return {
    splits: journals.map((journal) => ({
      id: journal.id,
      device: journal.plan.device.name,
      ifindex: journal.plan.device.ifindex,
      netnsInode: journal.netns.inode,
      flows: journal.plan.flows,
      pid: journal.owner.pid,
      created: journal.created,
      state: stateOf(journal),
      path: journal.plan.path,
      confirmBy: journal.confirmBy,
    })),
    errors,
  };
}

/** The live splits of one device, as facts for the next plan. */
export function splitsOn(directory: string, netnsInode: number, ifindex: number): OtherSplit[] {
  return listSplits(directory)
    .splits.filter(
      (each) => each.netnsInode === netnsInode && each.ifindex === ifindex && each.state !== "stale",
    )
    .map(({ id, pid, flows, path }) => ({ id, pid, flows, backend: path.backend, queues: path.queues }));
}
