// Describes the guest to boot: its NICs and how they are wired, its IOMMU, its kernel.

import { BifurcateError } from "@bifurcate/control/errors";

/** The NICs that QEMU emulates and Linux has a driver for, by that driver's short name. */
export const NIC_MODELS = ["igb", "e1000e", "virtio", "vmxnet3"] as const;
export type NicModel = (typeof NIC_MODELS)[number];

/** IOMMUs that QEMU emulates; "none" leaves the guest without one. */
export const IOMMUS = ["intel", "virtio", "none"] as const;
export type Iommu = (typeof IOMMUS)[number];

/**
 * Kernels that a guest can run. "stock" is the newest that Debian offers for its stable release, "6.12" that
 * release's own, "6.1" the release's before; "lab" is built here, from Debian's source and lab/guest/kernel.config.
 */
export const KERNELS = ["stock", "lab", "6.12", "6.1"] as const;
export type KernelName = (typeof KERNELS)[number];

/** One NIC that was asked for. */
export interface Nic {
  readonly model: NicModel;
  /** Queue pairs, virtio only: more than one needs a tap behind the NIC, and root on the host. */
  readonly queues?: number;
  /** A vhost-user socket of the host, virtio only: the NIC's rings are served by the program listening there. */
  readonly vhostUser?: string;
  /** Offers the guest packed rings, virtio only; it has split ones otherwise. */
  readonly packed?: boolean;
  /**
   * Sits in the slot of the NIC before it, as its other function. Of two virtio NICs nothing says that they are isolated
   * from each other, so they are in one IOMMU group; Intel's are taken for isolated. One pair a guest.
   */
  readonly sharesSlot?: boolean;
}

/** What to boot. */
export interface Machine {
  readonly nics: readonly Nic[];
  readonly iommu: Iommu;
  readonly kernel: KernelName;
  /** Memory of the guest, in MiB. */
  readonly memory: number;
  readonly cpus: number;
}

/** An interface of the guest: `nicN` was asked for, `farN` stands at the other end of the wire of `nicN`. */
export interface GuestPort {
  readonly name: string;
  readonly mac: string;
  readonly nic: Nic;
  /** Ports with the same wire are connected; null where a vhost-user socket is. */
  readonly wire: number | null;
}

/** What is booted when nothing is said. */
export const DEFAULT_MACHINE: Machine = { nics: [], iommu: "intel", kernel: "lab", memory: 2048, cpus: 2 };

function bad(text: string, why: string): BifurcateError {
  return new BifurcateError("E_BAD_OPTION", {
    what: `use '${text}' as a NIC of the guest`,
    why,
    next: `Give a list such as igb,igb or virtio:4: ${NIC_MODELS.join(", ")}, and :N for N queue pairs of virtio.`,
  });
}

/**
 * Reads `igb,igb,virtio:4`.
 * @throws BifurcateError E_BAD_OPTION.
 */
export function parseNics(text: string): Nic[] {
  if (text === "" || text === "none") return [];
  const nics = text.split(",").map((word): Nic => {
    const [, name, count] = /^([a-z0-9]+)(?::(\d{1,2}))?$/.exec(word.trim()) ?? [];
    const model = NIC_MODELS.find((known) => known === name);
    if (model === undefined) throw bad(word, "QEMU emulates no NIC of that name for this lab");
    if (count === undefined) return { model };
    const queues = Number(count);
    if (model !== "virtio")
      throw bad(word, "only virtio is given its queues; others: `ethtool -L` in the guest");
    if (queues < 1 || queues > 8) throw bad(word, "a NIC has 1 to 8 queue pairs here");
    return queues === 1 ? { model } : { model, queues };
  });
  return withVhostUser(nics, []);
}

/**
 * Adds a virtio NIC for each vhost-user socket of the host.
 * @throws BifurcateError E_BAD_OPTION when the guest has no room for all of them, or a socket has no path.
 */
export function withVhostUser(nics: readonly Nic[], sockets: readonly string[]): Nic[] {
  if (sockets.includes("")) throw bad("--vhost-user", "the path of the socket is missing");
  const all = [...nics, ...sockets.map((vhostUser): Nic => ({ model: "virtio", vhostUser }))];
  if (all.length <= MAX_NICS) return all;
  const text = all.map((nic) => nic.vhostUser ?? nic.model).join(",");
  throw bad(text, `they are ${all.length}, and there is room for ${MAX_NICS} NICs`);
}

/** As many as have room on the guest's root bus beside their far ends, disks and control channel. */
const MAX_NICS = 8;

/**
 * Names and wires. Equal neighbours are the two ends of a wire, in pairs from the left; each NIC that is left
 * over gets a virtio card of its own as far end. A NIC on a vhost-user socket has its far end on the host.
 */
export function layOut(nics: readonly Nic[]): GuestPort[] {
  const ports: GuestPort[] = [];
  let wires = 0;
  const port = (name: string, kind: number, n: number, nic: Nic, wire: number | null): void => {
    // 52:54:00 is QEMU's own prefix for locally administered addresses.
    const mac = `52:54:00:bf:${kind.toString(16).padStart(2, "0")}:${n.toString(16).padStart(2, "0")}`;
    ports.push({ name, mac, nic, wire });
  };
  for (let n = 0; n < nics.length; n += 1) {
    const nic = nics[n]!;
    const next = nics[n + 1];
    if (nic.vhostUser !== undefined) {
      port(`nic${n}`, 0, n, nic, null);
    } else if (next !== undefined && next.model === nic.model && next.vhostUser === undefined) {
      port(`nic${n}`, 0, n, nic, wires);
      port(`nic${n + 1}`, 0, n + 1, next, wires);
      wires += 1;
      n += 1;
    } else {
      port(`nic${n}`, 0, n, nic, wires);
      port(`far${n}`, 0xfa, n, { model: "virtio", ...(nic.queues ? { queues: nic.queues } : {}) }, wires);
      wires += 1;
    }
  }
  return ports;
}

/** One text for equal machines: guests are shared under it. */
export function machineKey(machine: Machine): string {
  const nics = machine.nics.map((nic) =>
    [
      ...[nic.model, nic.queues ?? 1, nic.vhostUser ?? ""],
      ...(nic.packed ? ["packed"] : []),
      ...(nic.sharesSlot ? ["shares-slot"] : []),
    ].join(":"),
  );
  return [nics.join(","), machine.iommu, machine.kernel, machine.memory, machine.cpus].join(" ");
}
