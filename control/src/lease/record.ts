// What is written down of a lease, so that the next broker can adopt it or take it away.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, messageOf } from "../errors.js";
import type { ProcessIdentity } from "../facts/processes.js";
import type { GrantedLease, LeaseRequest } from "../protocol/messages.js";
import type { Step } from "../steering/plan.js";
import { removeFile, writeWhole, type StepState } from "../transaction/journal.js";
import type { LeaseState } from "./state.js";

/** The RSS table that a card had before any of its queues was leased, and how it is put back. */
export interface TableBefore {
  readonly table: readonly number[];
  /** Receive queues that it was made for. */
  readonly queues: number;
  /** What restores it; null: the driver's default. */
  readonly restore: readonly number[] | null;
}

/** Queues of the card that are a lease's own, and what was changed of the card for them. */
export interface OwnQueues {
  readonly queues: readonly number[];
  /** Null where nothing was taken out of the table: the queues were set aside by root, or the card has none. */
  readonly before: TableBefore | null;
  /** Features and rules; the table is worked out from the queues of all leases. */
  readonly steps: readonly Step[];
  /** One for each step. */
  readonly states: readonly StepState[];
}

/** One lease. Everything is JSON. A newer broker reads an older one's: fields are only ever added. */
export interface LeaseRecord {
  readonly version: 1;
  readonly id: string;
  readonly state: LeaseState;
  /** ISO 8601. */
  readonly since: string;
  /** No lease survives a reboot. */
  readonly bootId: string;
  readonly netnsInode: number;
  readonly card: { readonly ifindex: number; readonly name: string };
  /** Its key in the card's DEVMAP. */
  readonly slot: number;
  /** The queues that are its own; null, or missing in a record of an older broker: it has a port. */
  readonly own?: OwnQueues | null;
  /**
   * The port's two ends and the return port by name: written before they are made, so the numbers are not known. The
   * ends have empty names where the lease has queues of its own.
   */
  readonly names: { readonly near: string; readonly far: string; readonly way: string | null };
  readonly client: ProcessIdentity & { readonly uid: number };
  /** The policy's rule that gave it. */
  readonly rule: string;
  readonly draining: "delete-port" | "wait" | "end-process";
  readonly request: LeaseRequest;
  /** Bytes of memory that it is given; missing in a record of an older broker. */
  readonly memory?: number;
  /** What the client was told; null until it was. */
  readonly granted: GrantedLease | null;
}

const PREFIX = "lease-";
const SUFFIX = ".json";

/** The file of a record. */
export function recordPath(directory: string, id: string): string {
  return join(directory, `${id}${SUFFIX}`);
}

/** Writes a record, whole or not at all. @throws E_JOURNAL */
export function writeRecord(directory: string, record: LeaseRecord): void {
  writeWhole(directory, recordPath(directory, record.id), record);
}

/** Removes a record: of the lease nothing is left. */
export function removeRecord(directory: string, id: string): void {
  removeFile(directory, recordPath(directory, id));
}

/** Removes records that were being written when their broker was killed: they never counted. */
export function removeUnfinished(directory: string): void {
  if (!existsSync(directory)) return;
  const unfinished = /^lease-[0-9a-f]{8}\.json\.\d+\.new$/;
  for (const name of readdirSync(directory).filter((each) => unfinished.test(each))) {
    removeFile(directory, join(directory, name));
  }
}

/** All records of a folder; those that cannot be understood, as errors. */
export function readRecords(directory: string): { records: LeaseRecord[]; errors: BifurcateError[] } {
  const records: LeaseRecord[] = [];
  const errors: BifurcateError[] = [];
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return { records, errors };
  }
  for (const name of names.filter((each) => each.startsWith(PREFIX) && each.endsWith(SUFFIX)).sort()) {
    const path = join(directory, name);
    try {
      records.push(checked(JSON.parse(readFileSync(path, "utf8")), name.slice(0, -SUFFIX.length)));
    } catch (thrown) {
      errors.push(
        new BifurcateError("E_JOURNAL_CORRUPT", {
          what: `read the lease ${path}`,
          why: messageOf(thrown),
          cause: thrown,
        }),
      );
    }
  }
  return { records, errors };
}

/** The parts that taking it away relies on; throws with the part that is wrong. */
function checked(value: unknown, id: string): LeaseRecord {
  const record = value as Partial<LeaseRecord> | null;
  const wrong = (part: string): never => {
    throw new Error(`its ${part} is missing or wrong`);
  };
  if (typeof record !== "object" || record === null || record.version !== 1) return wrong("version");
  if (record.id !== id || !/^lease-[0-9a-f]{8}$/.test(id)) return wrong("id");
  const { card, names, client, slot, request } = record;
  if (typeof card?.ifindex !== "number" || typeof card.name !== "string") return wrong("card");
  if (typeof names?.near !== "string" || typeof names.far !== "string") return wrong("names");
  if (typeof client?.pid !== "number" || typeof client.startTime !== "string") return wrong("client");
  if (typeof slot !== "number" || typeof record.bootId !== "string") return wrong("slot");
  if (!Array.isArray(request?.flows)) return wrong("request");
  const { own = null } = record;
  if (own !== null && !(Array.isArray(own.queues) && own.steps.length === own.states.length)) {
    return wrong("own queues");
  }
  return record as LeaseRecord;
}
