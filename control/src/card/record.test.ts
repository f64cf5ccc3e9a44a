// The record of a taken card: what is written reads back, and what was tampered with is not guessed from.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { bootId } from "../facts/processes.js";
import { readRecord, recordedCards, removeRecord, writeRecord, type CardRecord } from "./record.js";

const ADDRESS = "0000:01:00.0";
const record = (): CardRecord => ({
  version: 1,
  address: ADDRESS,
  bootId: bootId(),
  taken: "2026-01-01T00:00:00.000Z",
  via: "vfio",
  driver: "igb",
  driverOverride: null,
  interfaces: [
    { name: "eth0", index: 2, mac: "02:00:00:00:00:01", mtu: 1500, up: true, standing: ["1400", ""] },
  ],
});
let state: string;

beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), "bf-card-"));
  process.env["BIFURCATE_STATE_DIR"] = state;
});
afterEach(() => {
  delete process.env["BIFURCATE_STATE_DIR"];
  rmSync(state, { recursive: true });
});

it("reads back, is listed, and goes", () => {
  expect(readRecord(ADDRESS)).toBeNull();
  writeRecord(record());
  expect([readRecord(ADDRESS), recordedCards()]).toEqual([record(), [ADDRESS]]);
  removeRecord(ADDRESS);
  expect([readRecord(ADDRESS), recordedCards()]).toEqual([null, []]);
});

it("of another boot is void", () => {
  writeRecord({ ...record(), bootId: "another" });
  expect(readRecord(ADDRESS)).toBeNull();
});

it("that is no record is an error with the part that is wrong", () => {
  const file = join(state, "cards", `${ADDRESS}.json`);
  writeRecord(record());
  const whole = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  const wrong: [unknown, string][] = [
    [{ ...whole, address: "0000:02:00.0" }, "address"],
    [{ ...whole, via: "dpdk" }, "mechanism"],
    [{ ...whole, driver: 7 }, "driver"],
    [{ ...whole, interfaces: [{ ...record().interfaces[0], standing: ["xyz"] }] }, "interface"],
    [{ ...whole, interfaces: [{ ...record().interfaces[0], mac: "no" }] }, "interface"],
  ];
  for (const [value, part] of wrong) {
    writeFileSync(file, JSON.stringify(value));
    expect(() => readRecord(ADDRESS)).toThrow(expect.objectContaining({ code: "E_JOURNAL_CORRUPT" }));
    expect(() => readRecord(ADDRESS)).toThrow(part);
  }
  writeFileSync(file, '{"version":1');
  expect(() => readRecord(ADDRESS)).toThrow(expect.objectContaining({ code: "E_JOURNAL_CORRUPT" }));
});
