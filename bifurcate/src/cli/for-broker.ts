// What root prepares so that the broker needs no root: its BPF file system and its folders, and where asked for huge pages
// and virtual functions, and the files of cards that are to be leased whole.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { BifurcateError, messageOf } from "@bifurcate/control/errors";
import { accounts } from "@bifurcate/control/broker/accounts";

/** BPF_FS_MAGIC (include/uapi/linux/magic.h). */
const BPF_FS = 0xcafe4a11;

/** Whose they are, and where. */
export interface BrokerFolders {
  /** The broker's user: a name, or a number. */
  readonly user: string;
  /** Where to mount the BPF file system. */
  readonly bpf: string;
  /** Where its socket and records are. */
  readonly run: string;
}

/** What the machine is to have for its leases. */
export interface BrokerGround {
  /** Huge pages at least, in all; null: as it is. */
  readonly hugepages: number | null;
  /** Virtual functions of cards. */
  readonly functions: readonly { readonly device: string; readonly count: number }[];
}

/** The kernel's files that are written. */
export interface KernelFiles {
  readonly hugepages: string;
  /** A card's folder of its device. */
  device(name: string): string;
}

const FILES: KernelFiles = {
  hugepages: "/proc/sys/vm/nr_hugepages",
  device: (name) => `/sys/class/net/${name}/device`,
};

/** "eth0=4": a card and how many virtual functions it is to have. @throws E_BAD_OPTION */
export function parseFunctions(text: string): BrokerGround["functions"][number] {
  const [, device, count] = /^([^\s/=]{1,15})=(\d{1,3})$/.exec(text) ?? [];
  if (device !== undefined && device !== "." && device !== ".." && Number(count) >= 1) {
    return { device, count: Number(count) };
  }
  throw new BifurcateError("E_BAD_OPTION", {
    what: `read --vfs '${text}'`,
    why: "it is no card and number of virtual functions",
    next: "Write for example --vfs eth0=4.",
  });
}

/** --hugepages. @throws E_BAD_OPTION */
export function parseHugepages(text: string): number {
  if (/^\d{1,7}$/.test(text) && Number(text) > 0) return Number(text);
  const next = "Write for example --hugepages 64.";
  throw new BifurcateError("E_BAD_OPTION", {
    what: `read --hugepages '${text}'`,
    why: "it is no number of pages",
    next,
  });
}

/**
 * Raises what there is of huge pages, and makes virtual functions where a card has none; nothing is ever taken away.
 * @returns what was done, a line each. @throws E_SYSTEM, E_NOT_PRIVILEGED
 */
export function prepareGround({ hugepages, functions }: BrokerGround, files = FILES): string[] {
  const lines: string[] = [];
  if (hugepages !== null) lines.push(raise(files.hugepages, hugepages));
  for (const { device, count } of functions) lines.push(makeFunctions(device, files.device(device), count));
  return lines;
}

function number(path: string): number {
  return Number(readFileSync(path, "utf8").trim());
}

function raise(path: string, wanted: number): string {
  const what = `have ${wanted} huge pages`;
  try {
    const before = number(path);
    if (before >= wanted) return `huge pages: ${before}, as before`;
    writeFileSync(path, `${wanted}`);
    const now = number(path);
    if (now >= wanted) return `huge pages: ${now}, where there were ${before}`;
    // Not for us to keep half of it.
    writeFileSync(path, `${before}`);
    const next = "Ask for fewer, or earlier: at boot with hugepages=N on the kernel's command line.";
    throw new BifurcateError("E_SYSTEM", { what, why: `the kernel has room for ${now}`, next });
  } catch (thrown) {
    throw ground(what, thrown);
  }
}

function makeFunctions(device: string, folder: string, count: number): string {
  const what = `make ${count} virtual functions of ${device}`;
  const now = `${folder}/sriov_numvfs`;
  try {
    if (!existsSync(now)) {
      const why = existsSync(folder) ? "the card, or its driver, has none" : "there is no such card";
      throw new BifurcateError("E_SYSTEM", { what, why });
    }
    const [there, most] = [number(now), number(`${folder}/sriov_totalvfs`)];
    if (there === count) return `${device}: ${count} virtual functions, as before`;
    const why =
      there > 0
        ? `it has ${there}, and another number takes all of them away first`
        : count > most
          ? `it has at most ${most}`
          : null;
    if (why !== null) {
      const next = there > 0 ? `Take them away yourself: echo 0 > ${now}` : undefined;
      throw new BifurcateError("E_SYSTEM", { what, why, next });
    }
    writeFileSync(now, `${count}`);
    return `${device}: ${number(now)} virtual functions, made`;
  } catch (thrown) {
    throw ground(what, thrown);
  }
}

function ground(what: string, thrown: unknown): BifurcateError {
  if (thrown instanceof BifurcateError) return thrown;
  const denied = (thrown as NodeJS.ErrnoException).code === "EACCES";
  const next = denied ? "Run it with sudo." : undefined;
  const code = denied ? "E_NOT_PRIVILEGED" : "E_SYSTEM";
  return new BifurcateError(code, { what, why: messageOf(thrown), next, cause: thrown });
}

/** Where the files of cards that vfio-pci has are found, and those that map memory for them. */
export interface VfioFiles {
  /** A PCI function's folder in sysfs. */
  device(address: string): string;
  readonly dev: string;
}

const VFIO_FILES: VfioFiles = { device: (address) => `/sys/bus/pci/devices/${address}`, dev: "/dev" };

/**
 * Gives the broker's user the VFIO files of a card that was taken, and lets its group have /dev/iommu, by which nobody
 * reaches a card that he may not open. @returns what was done, a line each. @throws E_SYSTEM, E_NOT_PRIVILEGED
 */
export function handToBroker(address: string, uid: number, files = VFIO_FILES): string[] {
  const what = `give ${address} to the broker`;
  try {
    const folder = files.device(address);
    const own = existsSync(join(folder, "vfio-dev"))
      ? readdirSync(join(folder, "vfio-dev")).map((name) => join(files.dev, "vfio/devices", name))
      : [];
    const group = join(files.dev, "vfio", basename(readlinkSync(join(folder, "iommu_group"))));
    const given = [...own, group].filter((file) => existsSync(file));
    if (given.length === 0) {
      throw new BifurcateError("E_SYSTEM", { what, why: "vfio-pci shows no file for it in /dev/vfio" });
    }
    for (const file of given) {
      chownSync(file, uid, -1 >>> 0);
      chmodSync(file, 0o600);
    }
    const iommu = join(files.dev, "iommu");
    if (existsSync(iommu)) {
      chownSync(iommu, uid, -1 >>> 0);
      chmodSync(iommu, 0o660);
      given.push(iommu);
    }
    return given.map((file) => `${file}: the broker's (user ${uid})`);
  } catch (thrown) {
    throw ground(what, thrown);
  }
}

/** --user, as its number. @throws E_BAD_OPTION where there is no such user */
export function userNumber(user: string): number {
  const uid = accounts().user(user);
  if (uid !== null) return uid;
  const next = `Make it: useradd --system --user-group --no-create-home ${user}`;
  throw new BifurcateError("E_BAD_OPTION", {
    what: `read --user '${user}'`,
    why: "there is no such user",
    next,
  });
}

/** Prepares them; gives what was done. @throws E_NOT_PRIVILEGED, E_BAD_OPTION, E_SYSTEM */
export function prepare({ user, bpf, run }: BrokerFolders): string[] {
  const what = "prepare the broker's folders";
  if (process.geteuid?.() !== 0) {
    throw new BifurcateError("E_NOT_PRIVILEGED", { what, why: "it is not root", next: "Run it with sudo." });
  }
  const uid = userNumber(user);
  try {
    mkdirSync(bpf, { recursive: true, mode: 0o711 });
    const mounted = Number(statfsSync(bpf).type) >>> 0 === BPF_FS;
    if (!mounted) execFileSync("mount", ["-t", "bpf", "-o", "mode=0711", "bpf", bpf], { stdio: "pipe" });
    const names = join(bpf, "names");
    const had = existsSync(names);
    mkdirSync(names, { recursive: true, mode: 0o700 });
    chownSync(names, uid, -1 >>> 0);
    mkdirSync(run, { recursive: true, mode: 0o755 });
    chmodSync(run, 0o755);
    chownSync(run, uid, -1 >>> 0);
    return [
      mounted ? `${bpf}: a BPF file system, as before` : `${bpf}: a BPF file system, mounted`,
      `${names}: ${had ? "as before" : "made"}, the broker's (user ${uid})`,
      `${run}: the broker's (user ${uid})`,
    ];
  } catch (thrown) {
    throw new BifurcateError("E_SYSTEM", { what, why: messageOf(thrown), cause: thrown });
  }
}
