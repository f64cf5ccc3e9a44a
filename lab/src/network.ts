// Makes and removes a lab: a host with a multi-queue card, and a client at the other end of the wire.
//
//   bfNAME-host                        bfNAME-peer
//   nic0 192.0.2.1, 2001:db8:1::1  ==  peer0 192.0.2.2, 2001:db8:1::2
//                                      bfNAME-peer2 (when two clients are asked for)
//   nic1 192.0.2.129               ==  peer1 192.0.2.130, 2001:db8:2::2
//
// The addresses are those set aside for documentation (RFC 5737, RFC 3849), so they clash with nothing.

import { readdir } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { BifurcateError, errnoOf } from "@bifurcate/control/errors";
import { readMarkers, removeMarker, writeMarker } from "./marker.js";
import { inNetns, ip, needNamespaceRights, run } from "./tools.js";

/** One end of a wire. */
export interface LabEnd {
  readonly netns: string;
  readonly ifname: string;
  readonly mac: string;
  readonly v4: string;
  readonly v6: string;
}

/** A card of the host, and the client's end of its wire. */
export interface LabCard extends LabEnd {
  readonly peer: LabEnd;
}

/** A lab that is up. */
export interface Lab {
  readonly name: string;
  readonly cards: readonly LabCard[];
}

/** What to make. */
export interface LabOptions {
  /** Up to 8 letters, digits and dashes: it becomes part of the namespaces' names. */
  readonly name: string;
  /** Number of cards and of client namespaces: 1 or 2. */
  readonly clients?: 1 | 2;
  /** Receive and transmit queues of each end. */
  readonly queues?: number;
  /** MTU of both ends, in bytes. */
  readonly mtu?: number;
  /** Gives up, and leaves nothing of the lab. */
  readonly signal?: AbortSignal;
}

/** A lab as it is found: whole, or what a crash left of it. */
export interface LabState {
  readonly name: string;
  readonly made: string;
  readonly namespaces: readonly { readonly name: string; readonly exists: boolean }[];
  readonly whole: boolean;
}

const NAME = /^[a-z0-9](?:[a-z0-9-]{0,6}[a-z0-9])?$/;

function checkName(name: string): void {
  if (NAME.test(name)) return;
  throw new BifurcateError("E_BAD_OPTION", {
    what: `use '${name}' as the name of a lab`,
    why: "a name is 1 to 8 lower-case letters, digits and inner dashes",
    next: "Choose another name, or leave it out.",
  });
}

function plan(options: LabOptions): Lab {
  const cards = Array.from({ length: options.clients ?? 1 }, (_, n): LabCard => {
    const end = (side: 1 | 2, netns: string, ifname: string): LabEnd => ({
      netns,
      ifname,
      // Locally administered, and the same in every lab, so that captures of two runs compare.
      mac: `02:bf:00:00:0${n}:0${side}`,
      v4: `192.0.2.${n * 128 + side}`,
      v6: `2001:db8:${n + 1}::${side}`,
    });
    return {
      ...end(1, `bf${options.name}-host`, `nic${n}`),
      peer: end(2, `bf${options.name}-peer${n === 0 ? "" : n + 1}`, `peer${n}`),
    };
  });
  return { name: options.name, cards };
}

function namespacesOf(lab: Lab): string[] {
  return [...new Set(lab.cards.flatMap((card) => [card.netns, card.peer.netns]))];
}

/** Names of the namespaces of this machine that have one (ip-netns(8)). */
async function existingNamespaces(): Promise<Set<string>> {
  try {
    return new Set(await readdir("/run/netns"));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return new Set();
    throw error;
  }
}

/** Brings one end up. Neighbours are written down as if they had just answered, so the first packet is not lost. */
async function raise(end: LabEnd, other: LabEnd, mtu: number): Promise<void> {
  await ip(
    [
      `link set dev ${end.ifname} address ${end.mac} mtu ${mtu}`,
      `addr add ${end.v4}/25 dev ${end.ifname}`,
      `addr add ${end.v6}/64 dev ${end.ifname} nodad`,
      `link set dev ${end.ifname} up`,
      `neigh replace ${other.v4} lladdr ${other.mac} dev ${end.ifname} nud reachable`,
      `neigh replace ${other.v6} lladdr ${other.mac} dev ${end.ifname} nud reachable`,
    ],
    end.netns,
  );
}

/** Waits until both ends carry: linkwatch tells the stack up to a second after the link came up. */
async function settle(card: LabCard): Promise<void> {
  for (const end of [card, card.peer]) {
    for (
      let tries = 0;
      !/ state UP /.test(await ip([`-o link show dev ${end.ifname}`], end.netns));
      tries += 1
    ) {
      if (tries >= 600) {
        throw new BifurcateError("E_LAB", {
          what: `bring up ${end.ifname}`,
          why: "no carrier after 30 seconds",
        });
      }
      await delay(50);
    }
  }
}

/** Duplicate address detection would keep the link-local address unusable for a second. */
async function prepareNamespace(netns: string): Promise<void> {
  await ip(["link set dev lo up"], netns);
  const off = "for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done 2>/dev/null; exit 0";
  await run(...inNetns(netns, "sh", ["-c", off]));
}

/**
 * Makes a lab. Whatever fails on the way, nothing is left of it.
 * @throws BifurcateError E_NOT_PRIVILEGED, E_MISSING_TOOL, E_BAD_OPTION, or E_LAB when one of that name is up, or the
 *   signal came.
 */
export async function labUp(options: LabOptions): Promise<Lab> {
  checkName(options.name);
  const what = `make the lab ${options.name}`;
  needNamespaceRights(what);
  const lab = plan(options);
  const namespaces = namespacesOf(lab);
  const existing = await existingNamespaces();
  const taken = namespaces.filter((netns) => existing.has(netns));
  const marked = (await readMarkers()).some((marker) => marker.name === options.name);
  if (taken.length > 0 && !marked) {
    throw new BifurcateError("E_LAB", {
      what,
      why: `the namespace ${taken.join(" and ")} exists and no lab made it`,
      next: "Choose another name for the lab.",
    });
  }
  // Written first: a crash at any later moment leaves something that labDown finds.
  await writeMarker({ name: options.name, namespaces, made: new Date().toISOString() });
  try {
    const queues = options.queues ?? 4;
    const counts = `numrxqueues ${queues} numtxqueues ${queues}`;
    await ip(namespaces.map((netns) => `netns add ${netns}`));
    for (const netns of namespaces) {
      options.signal?.throwIfAborted();
      await prepareNamespace(netns);
    }
    for (const card of lab.cards) {
      options.signal?.throwIfAborted();
      const { peer } = card;
      await ip(
        [
          `link add ${card.ifname} ${counts} type veth peer name ${peer.ifname} ${counts} netns ${peer.netns}`,
        ],
        card.netns,
      );
      await raise(card, peer, options.mtu ?? 1500);
      await raise(peer, card, options.mtu ?? 1500);
    }
    await Promise.all(lab.cards.map(settle));
    options.signal?.throwIfAborted();
    return lab;
  } catch (error) {
    await labDown(options.name).catch(() => undefined);
    if (options.signal?.aborted !== true) throw error;
    // On a terminal Ctrl-C also ends the ip(8) that runs at the moment: its failure is not the reason.
    throw new BifurcateError("E_LAB", {
      what,
      why: "it was interrupted, and nothing is left of it",
      next: "Type the command again.",
      cause: error,
    });
  }
}

/** The lab of that name as labUp would return it, or null when none is up. */
export async function labFind(name: string): Promise<Lab | null> {
  const state = (await labList()).find((found) => found.name === name);
  if (state === undefined || !state.whole) return null;
  return plan({ name, clients: state.namespaces.length > 2 ? 2 : 1 });
}

/** All labs of this machine, those included of which a crash left only parts. */
export async function labList(): Promise<LabState[]> {
  const existing = await existingNamespaces();
  return (await readMarkers()).map((marker) => {
    const namespaces = marker.namespaces.map((name) => ({ name, exists: existing.has(name) }));
    const whole = namespaces.length > 0 && namespaces.every((netns) => netns.exists);
    return { name: marker.name, made: marker.made, namespaces, whole };
  });
}

/**
 * Removes a lab: its devices, its namespaces and its marker. Parts that are gone already are passed over.
 * @returns What was removed, and the processes that still live in a namespace (it ends with the last of them).
 * @throws BifurcateError E_LAB when no lab of that name was made here.
 */
export async function labDown(name: string): Promise<{ removed: string[]; processes: number[] }> {
  const what = `remove the lab ${name}`;
  const marker = (await readMarkers()).find((found) => found.name === name);
  if (marker === undefined) {
    throw new BifurcateError("E_LAB", {
      what,
      why: "no lab of that name was made here",
      next: "See which there are: bifurcate lab status",
    });
  }
  needNamespaceRights(what);
  const removed: string[] = [];
  const processes: number[] = [];
  for (const netns of marker.namespaces) {
    if (!(await existingNamespaces()).has(netns)) continue;
    const pids = await run("ip", ["netns", "pids", netns]);
    processes.push(...pids.stdout.split("\n").filter(Boolean).map(Number));
    // The wires go first: a namespace that a process keeps alive would keep them too.
    const links = await run("ip", ["-n", netns, "-o", "link", "show", "type", "veth"]);
    for (const [, ifname] of links.stdout.matchAll(/^\d+: ([^@:\s]+)/gm)) {
      await run("ip", ["-n", netns, "link", "del", "dev", ifname!]);
    }
    await ip([`netns del ${netns}`]);
    removed.push(netns);
  }
  await removeMarker(name);
  return { removed, processes };
}
