// The record of a card that was taken: what it was before, on disk before the first change.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, errnoOf, messageOf } from "../errors.js";
import { bootId } from "../facts/processes.js";
import { removeFile, stateDirectory, writeWhole } from "../transaction/journal.js";
import { MECHANISMS, type Mechanism } from "./mechanism.js";

/** An interface of the card, as it was. */
export interface SavedInterface {
  readonly name: string;
  /** Its number then: routes name it. */
  readonly index: number;
  readonly mac: string;
  /** In bytes. */
  readonly mtu: number;
  readonly up: boolean;
  /** Its addresses and routes, netlink messages in hex. */
  readonly standing: readonly string[];
}

/** What a card was before it was taken. */
export interface CardRecord {
  readonly version: 1;
  readonly address: string;
  /** Neither a binding nor a route survives a reboot, so a record of another boot is void. */
  readonly bootId: string;
  /** ISO 8601. */
  readonly taken: string;
  readonly via: Mechanism;
  /** The kernel driver that had it; null when none had. */
  readonly driver: string | null;
  /** What driver_override said; null when nothing. */
  readonly driverOverride: string | null;
  readonly interfaces: readonly SavedInterface[];
}

const folder = (): string => join(stateDirectory(), "cards");
const pathOf = (address: string): string => join(folder(), `${address}.json`);

/** Writes the record; a crash leaves the old one or the new one, whole. @throws E_JOURNAL */
export function writeRecord(record: CardRecord): void {
  writeWhole(folder(), pathOf(record.address), record);
}

/** Removes it: the card is as it was. */
export function removeRecord(address: string): void {
  removeFile(folder(), pathOf(address));
}

/** The record of a card; null when there is none of this boot. @throws E_JOURNAL, E_JOURNAL_CORRUPT */
export function readRecord(address: string): CardRecord | null {
  const path = pathOf(address);
  const what = `read the record ${path}`;
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (thrown) {
    if (errnoOf(thrown) === "ENOENT") return null;
    throw new BifurcateError("E_JOURNAL", { what, why: messageOf(thrown), cause: thrown });
  }
  try {
    const record = checked(JSON.parse(text), address);
    return record.bootId === bootId() ? record : null;
  } catch (thrown) {
    throw new BifurcateError("E_JOURNAL_CORRUPT", {
      what,
      why: messageOf(thrown),
      next: `Remove the file, then give the card back: its interface comes without addresses and routes.`,
      cause: thrown,
    });
  }
}

/** The addresses of all cards that have a record. */
export function recordedCards(): string[] {
  try {
    return readdirSync(folder())
      .filter((name) => name.endsWith(".json"))
      .map((name) => name.slice(0, -".json".length))
      .sort();
  } catch {
    return [];
  }
}

function checked(value: unknown, address: string): CardRecord {
  const record = value as Partial<CardRecord> | null;
  const wrong = (part: string): never => {
    throw new Error(`its ${part} is missing or wrong`);
  };
  const text = (each: unknown): boolean => typeof each === "string";
  if (typeof record !== "object" || record === null || record.version !== 1) return wrong("version");
  if (record.address !== address) return wrong("address");
  if (!text(record.bootId)) return wrong("boot");
  if (!MECHANISMS.some((each) => each === record.via)) return wrong("mechanism");
  for (const part of ["driver", "driverOverride"] as const)
    if (record[part] !== null && !text(record[part])) return wrong(part);
  if (!Array.isArray(record.interfaces)) return wrong("list of interfaces");
  for (const each of record.interfaces as Partial<SavedInterface>[]) {
    const numbers = [each.index, each.mtu].every(Number.isInteger) && typeof each.up === "boolean";
    const standing =
      Array.isArray(each.standing) && each.standing.every((one) => /^([0-9a-f]{2})*$/.test(one));
    const names = text(each.name) && /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(String(each.mac));
    if (!numbers || !standing || !names) return wrong("interface");
  }
  return record as CardRecord;
}
