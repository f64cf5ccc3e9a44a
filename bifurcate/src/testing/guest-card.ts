// For tests of cards taken whole in a guest: the programs that run there, and what they saw.

import { appendFileSync, readFileSync } from "node:fs";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { bringUp, carrier, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { expect } from "vitest";
import type { Mechanism } from "@bifurcate/control/card/mechanism";
import type { CardResult, CardRow } from "./card-rows.js";
import { putProgram } from "./guest-program.js";
import { shell } from "./guest-split.js";
import { buildExample } from "./rust-example.js";

/** The address of a virtual function's that a test makes. */
export const VF_MAC = "52:54:00:bf:aa:01";

/** Seconds that a program may take. */
const LIMIT = 560;

/**
 * Runs testing/NAME.ts in the guest with a value; gives the lines that it prints, read as JSON, and shows them as they
 * come, since some programs take minutes.
 */
export async function program<T>(guest: Guest, name: string, value: unknown): Promise<T[]> {
  const file = await putProgram(guest, `bifurcate/src/testing/${name}.ts`);
  const run = guest.start(["node", file, JSON.stringify(value)], { limit: LIMIT });
  const said = { stdout: "", stderr: "" };
  run.stderr.setEncoding("utf8").on("data", (text: string) => (said.stderr += text));
  run.stdout.setEncoding("utf8").on("data", (text: string) => {
    said.stdout += text;
    console.log(text.trimEnd());
  });
  const status = await run.ended;
  await guest.run(["rm", "-f", file]);
  if (status !== 0) throw new Error(`${name}: status ${status}: ${said.stdout}${said.stderr}`);
  return said.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);
}

/** Builds an example of one of the crates and puts it into the guest, as /tmp/NAME; gives its path there. */
export async function bringExample(
  guest: Guest,
  crate: string,
  name: string,
  features: readonly string[] = [],
): Promise<string> {
  const more = features.flatMap((feature) => ["--features", feature]);
  const program = readFileSync(buildExample(crate, name, "--profile", "guest", ...more));
  const file = `/tmp/${name}`;
  const write = ["sh", "-c", `base64 -d > ${file} && chmod 755 ${file}`];
  await guest.run(write, { input: program.toString("base64") });
  return file;
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

/** The wires of a guest with a card of each model that has a driver of ours. */
export interface Wires {
  readonly igb: Wire;
  readonly e1000e: Wire;
  readonly virtio: Wire;
}

/** MTU of the wires of cards that are taken: not what a card has anyhow, so that giving one back has it to restore. */
const TAKEN_MTU = 1400;

/** Wires nic0 to nic2, which are a card of each model, and lets the guest have hugepages for those that take them. */
export async function bringUpCards(guest: Guest): Promise<Wires> {
  const igb = await bringUp(guest, "nic0", TAKEN_MTU);
  const e1000e = await bringUp(guest, "nic1", TAKEN_MTU);
  const virtio = await bringUp(guest, "nic2", TAKEN_MTU);
  await shell(guest, "echo 16 > /proc/sys/vm/nr_hugepages");
  return { igb, e1000e, virtio };
}

/** Leaves the guest as bringUpCards() found it. */
export async function takeDownCards(guest: Guest, { igb, e1000e, virtio }: Wires): Promise<void> {
  await shell(guest, "echo 0 > /proc/sys/vm/nr_hugepages; rm -rf /run/bifurcate/cards");
  for (const wire of [igb, e1000e, virtio]) {
    await takeDown(guest, wire);
    await shell(guest, `ip link set dev ${wire.nic.name} mtu 1500`);
  }
}

/** A row for each card by a mechanism. */
export function everyCard(guest: Guest, via: Mechanism, { igb, e1000e, virtio }: Wires): CardRow[] {
  return [
    cardRow(guest, "igb", via, igb),
    cardRow(guest, "e1000e", via, e1000e),
    cardRow(guest, "virtio", via, virtio),
  ];
}

/** Makes a virtual function of the card at `wire`, runs `use` with a row for it by each mechanism, and takes it away. */
export async function withFunction<T>(
  guest: Guest,
  wire: Wire,
  mechanisms: readonly Mechanism[],
  use: (rows: readonly CardRow[]) => Promise<T>,
): Promise<T> {
  const { nic, far } = wire;
  const device = `/sys/class/net/${nic.name}/device`;
  const target = nic.v4.replace(/\d+$/, "13");
  await shell(
    guest,
    `echo 0 > ${device}/sriov_drivers_autoprobe; echo 1 > ${device}/sriov_numvfs; ` +
      `ip link set dev ${nic.name} vf 0 mac ${VF_MAC} spoofchk on; ` +
      `ip -n ${far.netns} neigh replace ${target} lladdr ${VF_MAC} dev ${far.name} nud permanent`,
  );
  const address = (await shell(guest, `basename $(readlink ${device}/virtfn0)`)).trim();
  // The card was reset for its first function; with the link its driver greets each function, in the same mailbox.
  await carrier(guest, nic.name);
  const rows = mechanisms.map((via) => ({
    ...cardRow(guest, "igbvf", via, wire),
    address,
    interface: null,
    target,
    beside: nic.v4,
    // A virtual function has no interrupt line, and uio_pci_generic hands on nothing else.
    interrupts: via !== "uio_pci_generic",
  }));
  try {
    return await use(rows);
  } finally {
    await shell(guest, `echo 0 > ${device}/sriov_numvfs; echo 1 > ${device}/sriov_drivers_autoprobe`);
  }
}

/** Tries every row, and holds each to: bound, frames both ways, interrupts or their refusal, given back. */
export async function tryRows(guest: Guest, rows: readonly CardRow[]): Promise<CardResult[]> {
  const results = await program<CardResult>(guest, "card-rows", rows);
  report(results);
  for (const [n, result] of results.entries()) {
    const via = result.via;
    const bound = via === "uio_pci_generic" || via === "igb_uio" ? via : "vfio-pci";
    const where = `${result.driver} via ${via}${rows[n]!.keys ?? ""}`;
    expect(result, where).toMatchObject({ error: null, bound, polled: 3, given: true });
    if (!rows[n]!.interrupts) {
      expect(result.refused, where).toBe("E_NO_INTERRUPT");
      continue;
    }
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
