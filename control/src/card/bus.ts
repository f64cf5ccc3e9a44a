// What taking a card asks of the machine's PCI bus. The native addon is the real one; tests put a fake in its place.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import type { PciFunction } from "@bifurcate/addon";
import { loadAddon } from "../addon.js";
import { commandOf, processNumbers } from "../facts/processes.js";

export type { PciFunction } from "@bifurcate/addon";

/** A process that has a card's file open. */
export interface Holder {
  readonly pid: number;
  readonly command: string;
}

/** The PCI bus of the machine. Functions throw kernel errors. */
export interface CardBus {
  /** ENODEV when there is none, EINVAL when that is no address. */
  function(address: string): PciFunction;
  /** Nobody else can open, take or give back the card until it is closed. EBUSY when somebody has it. */
  lock(address: string): { close(): void };
  bind(address: string, driver: string): void;
  /** Lets the kernel choose the driver; gives its name. */
  giveBack(address: string): string | null;
  hasDriver(driver: string): boolean;
  /** Loads a driver's module; why it could not be, or null. */
  loadModule(driver: string): string | null;
  /** How the IOMMU treats a group: "identity", "DMA", "DMA-FQ", ...; null where the kernel does not say. */
  groupType(group: number): string | null;
  /** Whether VFIO takes cards without an IOMMU now. */
  noIommuMode(): boolean;
  /** Who has the card open by VFIO or UIO, as far as open descriptors say: not who has but its registers mapped. */
  holders(card: PciFunction): Holder[];
  /** Whether anybody has it open by VFIO, or mapped, as the kernel says; false where it says nothing of this one card. */
  isOpen(card: PciFunction): boolean;
}

/** This machine's bus. */
export function machineBus(): CardBus {
  const addon = loadAddon();
  return {
    function: (address) => addon.pciFunction(address),
    lock: (address) => addon.pciLock(address),
    bind: (address, driver) => addon.pciBind(address, driver),
    giveBack: (address) => addon.pciGiveBack(address),
    hasDriver: (driver) => addon.pciHasDriver(driver),
    loadModule,
    groupType: (group) => firstLine(`/sys/kernel/iommu_groups/${group}/type`),
    noIommuMode: () => firstLine("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") === "Y",
    holders,
    isOpen: ({ address }) => staysOpen(() => isOpen(addon.pciIsOpen, address)),
  };
}

function firstLine(path: string): string | null {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return null;
  }
}

function loadModule(driver: string): string | null {
  try {
    execFileSync("modprobe", [driver], { stdio: "pipe" });
    return null;
  } catch (thrown) {
    const said = String((thrown as { stderr?: unknown }).stderr ?? "").trim();
    return said === "" ? "modprobe could not load it" : said;
  }
}

function holders(card: PciFunction): Holder[] {
  const folder = `/sys/bus/pci/devices/${card.address}`;
  const below = (name: string): string[] =>
    existsSync(`${folder}/${name}`) ? readdirSync(`${folder}/${name}`) : [];
  const group = card.iommuGroup ?? null;
  const files = new Set([
    ...below("uio").map((name) => `/dev/${name}`),
    ...below("vfio-dev").map((name) => `/dev/vfio/devices/${name}`),
    ...(group === null ? [] : [`/dev/vfio/${group}`, `/dev/vfio/noiommu-${group}`]),
  ]);
  return processNumbers()
    .filter((pid) => pid !== process.pid && openFiles(pid).some((file) => files.has(file)))
    .map((pid) => ({ pid, command: commandOf(pid) }));
}

/** How long the kernel may need to close the card of a process that has just ended, ms: it resets it then. */
const CLOSING_MS = 2_000;

/** null also of a card that is gone: whoever takes it hears that by other means. */
function isOpen(look: (address: string) => boolean | null, address: string): boolean | null {
  try {
    return look(address);
  } catch {
    return null;
  }
}

/**
 * Asks until it is closed, or for `closing` milliseconds.
 * @param look What the kernel tells; null where it tells nothing of this one card.
 */
export function staysOpen(look: () => boolean | null, closing = CLOSING_MS): boolean {
  const end = performance.now() + closing;
  while (look() === true) {
    if (performance.now() >= end) return true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
  return false;
}

function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return [];
      }
    });
  } catch {
    // Gone, or not ours to look at.
    return [];
  }
}
