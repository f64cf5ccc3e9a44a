// Finds a split's namespace and device again: renamed, moved, or only reachable through somebody's descriptor.
import { readdirSync, readlinkSync, statSync } from "node:fs";
import type { Kernel, Link, Netns } from "../kernel.js";
import { processNumbers } from "../facts/processes.js";
import type { Journal } from "./journal.js";

/** Opens the namespace with that inode by any path that leads to it; null when there is none. */
export function reopenNetns(kernel: Kernel, journal: Pick<Journal, "netns" | "owner">): Netns | null {
  const { inode, path } = journal.netns;
  for (const candidate of namespacePaths(path, journal.owner.pid)) {
    try {
      if (statSync(candidate).ino !== inode) continue;
      const netns = kernel.openNetns(candidate);
      if (netns.inode === inode) return netns;
      netns.close();
    } catch {
      // Gone, or not ours to look at.
    }
  }
  return null;
}

/** Where network namespaces can be found, the likeliest first. */
function* namespacePaths(recorded: string, owner: number): Generator<string> {
  yield recorded;
  yield "/proc/self/ns/net";
  yield `/proc/${owner}/ns/net`;
  // A namespace whose name was removed lives on in its owner's descriptor.
  for (const descriptor of names(`/proc/${owner}/fd`)) {
    const path = `/proc/${owner}/fd/${descriptor}`;
    if (target(path).startsWith("net:[")) yield path;
  }
  for (const name of names("/run/netns")) yield `/run/netns/${name}`;
  for (const pid of processNumbers()) yield `/proc/${pid}/ns/net`;
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function target(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** A device and the namespace it is in. */
export interface Located {
  readonly netns: Netns;
  readonly link: Link;
  /** The namespace was opened for this and is to be closed. */
  readonly opened: boolean;
}

/**
 * Finds the split's device: by number in its own namespace, whatever it is called now; else, moved, by number
 * or bus with the same MAC address in any namespace that can be found. null: it is gone.
 */
export function locateDevice(
  kernel: Kernel,
  home: Netns | null,
  journal: Pick<Journal, "plan">,
): Located | null {
  const { device } = journal.plan;
  const atHome = home?.links().find((link) => link.index === device.ifindex);
  if (home !== null && atHome !== undefined && sameDriver(home, atHome, device.driver)) {
    return { netns: home, link: atHome, opened: false };
  }
  const seen = new Set<number>(home === null ? [] : [home.inode]);
  for (const path of namespacePaths("/proc/1/ns/net", process.pid)) {
    let netns: Netns | null = null;
    try {
      const inode = statSync(path).ino;
      if (seen.has(inode)) continue;
      seen.add(inode);
      netns = kernel.openNetns(path);
      const here = netns;
      const link = here.links().find((each) => each.mac === device.mac && isMoved(here, each, device));
      if (link !== undefined) return { netns, link, opened: true };
    } catch {
      // Gone, or not ours to look at.
    }
    netns?.close();
  }
  return null;
}

function isMoved(netns: Netns, link: Link, device: Journal["plan"]["device"]): boolean {
  if (!sameDriver(netns, link, device.driver)) return false;
  return link.index === device.ifindex || (device.bus !== "" && netns.driver(link.name).bus === device.bus);
}

function sameDriver(netns: Netns, link: Link, driver: string): boolean {
  try {
    return netns.driver(link.name).driver === driver;
  } catch {
    return false;
  }
}
