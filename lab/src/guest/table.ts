// The table of drivers and modes in docs/lab.md: asked of a guest with one NIC of each model, never written by hand.

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";
import type { Guest, UpPort } from "./guest.js";
import type { KernelName } from "./machine.js";
import { bringUp, takeDown, type Wire } from "./wire.js";

/** The machine that the table is about. */
export const TABLE_NICS = "igb,e1000e,virtio,vmxnet3";

/** The page that has the table. */
export const TABLE_PAGE = path.join(fileURLToPath(new URL("../../..", import.meta.url)), "docs/lab.md");

const BEGIN = "<!-- table: begin -->";
const END = "<!-- table: end -->";

interface Device {
  readonly name: string;
  readonly driver: string;
  readonly queues: { readonly now: number; readonly max: number | null };
  readonly mechanisms: readonly {
    readonly name: string;
    readonly can: boolean;
    readonly why: string | null;
  }[];
}

/** A cell: "?" where the kernel does not say beforehand what the driver can. */
function cellOf(can: boolean, why: string | null): string {
  if (!can) return "-";
  return why?.includes("the kernel does not tell") === true ? "?" : "yes";
}

/** Binds a NIC to a driver for user space, looks for what that driver gives, and binds it back, under its old name. */
function bindScript(name: string, pci: string, driver: string, gives: string): string {
  const device = `/sys/bus/pci/devices/${pci}`;
  return `
modprobe -q ${driver}
before=$(basename "$(readlink ${device}/driver)")
echo ${driver} > ${device}/driver_override
echo ${pci} > ${device}/driver/unbind
echo ${pci} > /sys/bus/pci/drivers_probe 2>/dev/null
test "$(basename "$(readlink ${device}/driver)")" = ${driver} && ${gives} && echo yes || echo no
echo > ${device}/driver_override
echo ${pci} > ${device}/driver/unbind 2>/dev/null
echo ${pci} > /sys/bus/pci/drivers/$before/bind
made=$(ls -d ${device}/net/* ${device}/virtio*/net/* 2>/dev/null | head -n 1)
ip link set dev "$(basename "$made")" name ${name}`;
}

/** Whether a program of the guest could drive the NIC through vfio-pci, with the IOMMU, or uio_pci_generic. */
async function userSpaceDrivers(guest: Guest, { name, pci }: UpPort): Promise<[string, boolean][]> {
  const device = `/sys/bus/pci/devices/${pci}`;
  const group = `test -c "/dev/vfio/$(basename "$(readlink ${device}/iommu_group)")"`;
  const answers: [string, boolean][] = [];
  for (const [driver, gives] of [
    ["vfio-pci", group],
    ["uio_pci_generic", `ls ${device}/uio/uio* > /dev/null 2>&1`],
  ] as const) {
    const { status, stdout, stderr } = await guest.run(["sh", "-c", bindScript(name, pci, driver, gives)]);
    if (status !== 0) {
      throw new BifurcateError("E_GUEST", {
        what: `bind ${name} to ${driver} and back`,
        why: `status ${status}: ${stderr.trim()}`,
      });
    }
    answers.push([driver, stdout.trim() === "yes"]);
  }
  return answers;
}

/** The rows of one kernel, as Markdown. NICs are bound to other drivers on the way, and back. */
export async function tableRows(guest: Guest): Promise<{ titles: string[]; rows: string[][] }> {
  const release = (await guest.run(["uname", "-r"])).stdout;
  const version = /^\d+\.\d+/.exec(release)![0] + (guest.machine.kernel === "lab" ? " (lab)" : "");
  const nics = guest.ports.filter((port) => port.name.startsWith("nic"));
  const wires: Wire[] = [];
  for (const nic of nics) wires.push(await bringUp(guest, nic.name));
  const { stdout } = await guest.run(["bifurcate", "devices", "--json"]);
  for (const wire of wires) await takeDown(guest, wire);
  const { devices } = JSON.parse(stdout) as { devices: Device[] };
  const rows: string[][] = [];
  let titles: string[] = [];
  for (const nic of nics) {
    const device = devices.find((each) => each.name === nic.name)!;
    const user = await userSpaceDrivers(guest, nic);
    const told = device.mechanisms.map(({ name, can, why }) => [name, cellOf(can, why)] as const);
    const columns = [...told, ...user.map(([name, can]) => [name, cellOf(can, null)] as const)];
    titles = ["kernel", "driver", "queues", ...columns.map(([name]) => name)];
    const queues = String(device.queues.max ?? device.queues.now);
    rows.push([version, device.driver, queues, ...columns.map(([, cell]) => cell)]);
  }
  return { titles, rows };
}

/** A Markdown table, its columns as wide as their longest cell: as prettier writes it. */
function markdown(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = titles.map((title, at) => Math.max(3, title.length, ...rows.map((row) => row[at]!.length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, at) => cell.padEnd(widths[at]!)).join(" | ")} |`;
  return [line(titles), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

/** Cells of the table's rows on a page: all, or those of a kernel's version, e.g. "6.1" or "7.3 (lab)". */
export function rowsOnPage(page: string, version?: string): string[][] {
  const table = page.slice(page.indexOf(BEGIN), page.indexOf(END));
  const cells = table
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  return cells.filter(([first]) => version === undefined || first === version);
}

/** Asks these kernels and writes their rows into the page, in place of those that it has for them. */
export async function writeTable(
  kernels: readonly KernelName[],
  boot: (kernel: KernelName) => Promise<Guest>,
): Promise<void> {
  for (const kernel of kernels) {
    const guest = await boot(kernel);
    try {
      const { titles, rows } = await tableRows(guest);
      const page = await readFile(TABLE_PAGE, "utf8");
      const kept = rowsOnPage(page).filter(([version]) => version !== rows[0]![0] && /^\d/.test(version!));
      const all = [...kept, ...rows].sort(byVersion);
      const fresh = `${BEGIN}\n\n${markdown(titles, all)}\n\n${END}`;
      const after = page.slice(page.indexOf(END) + END.length);
      await writeFile(TABLE_PAGE, page.slice(0, page.indexOf(BEGIN)) + fresh + after);
    } finally {
      await guest.close();
    }
  }
}

/** Oldest kernel first; the lab's after Debian's of the same version. */
function byVersion([a]: readonly string[], [b]: readonly string[]): number {
  const parts = (text: string): number[] => text.match(/\d+/g)!.map(Number);
  const [[majorA, minorA], [majorB, minorB]] = [parts(a!), parts(b!)];
  return majorA! - majorB! || minorA! - minorB! || a!.length - b!.length;
}
