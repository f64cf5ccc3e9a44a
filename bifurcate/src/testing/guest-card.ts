// For tests of cards taken whole in a guest: the programs that run there, and what they saw.

import { appendFileSync, readFileSync } from "node:fs";
import type { Guest } from "@bifurcate/lab/guest/guest";
import type { Wire } from "@bifurcate/lab/guest/wire";
import { transformSync } from "esbuild";
import { expect } from "vitest";
import type { Mechanism } from "@bifurcate/control/card/mechanism";
import type { CardResult, CardRow } from "./card-rows.js";

/** The address of a virtual function's that a test makes. */
export const VF_MAC = "52:54:00:bf:aa:01";

/** Seconds that a program may take. */
const LIMIT = 560;

/**
 * Runs testing/NAME.ts in the guest with a value; gives the lines that it prints, read as JSON, and shows them as they
 * come, since some programs take minutes.
 */
export async function program<T>(guest: Guest, name: string, value: unknown): Promise<T[]> {
  const source = readFileSync(new URL(`./${name}.ts`, import.meta.url), "utf8");
  const { code } = transformSync(source, { loader: "ts", format: "esm", target: "node20" });
  await guest.run(["tee", `bifurcate/${name}.mjs`], { input: code });
  const run = guest.start(["node", `bifurcate/${name}.mjs`, JSON.stringify(value)], { limit: LIMIT });
  const said = { stdout: "", stderr: "" };
  run.stderr.setEncoding("utf8").on("data", (text: string) => (said.stderr += text));
  run.stdout.setEncoding("utf8").on("data", (text: string) => {
    said.stdout += text;
    console.log(text.trimEnd());
  });
  const status = await run.ended;
  await guest.run(["rm", "-f", `bifurcate/${name}.mjs`]);
  if (status !== 0) throw new Error(`${name}: status ${status}: ${said.stdout}${said.stderr}`);
  return said.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);
}

/** Where a port of the guest sits. */
export function pciOf(guest: Guest, name: string): string {
  return guest.ports.find((port) => port.name === name)!.pci;
}

/** A row for a card that is wired, by a mechanism. */
export function cardRow(guest: Guest, driver: string, via: Mechanism, wire: Wire, keys = ""): CardRow {
  return {
    driver,
    via,
    address: pciOf(guest, wire.nic.name),
    interface: wire.nic.name,
    netns: wire.far.netns,
    target: wire.nic.v4,
    interrupts: true,
    keys,
  };
}

/** Tries every row, and holds each to: bound, frames both ways, interrupts, given back. */
export async function tryRows(guest: Guest, rows: readonly CardRow[]): Promise<CardResult[]> {
  const results = await program<CardResult>(guest, "card-rows", rows);
  report(results);
  for (const [n, result] of results.entries()) {
    const via = result.via;
    const bound = via === "uio_pci_generic" || via === "igb_uio" ? via : "vfio-pci";
    const where = `${result.driver} via ${via}${rows[n]!.keys ?? ""}`;
    expect(result, where).toMatchObject({ error: null, bound, polled: 3, given: true });
    if (!rows[n]!.interrupts) continue;
    expect(result.slept, where).toMatchObject({ answered: 3 });
    expect(result.slept!.interrupts, where).toBeGreaterThan(0);
  }
  expect(results.length).toBe(rows.length);
  return results;
}

/** A row a mechanism and driver for who asked for a report (`npm run test:guest -- --report`). */
function report(results: readonly CardResult[]): void {
  const file = process.env["BIFURCATE_GUEST_REPORT"];
  if (file === undefined) return;
  for (const result of results) appendFileSync(file, `${JSON.stringify(result)}\n`);
}
