// Spare cards that are wired to each other: found by asking each who hears it, lent to a measurement, and put back.

import { createSocket, type Socket } from "node:dgram";
import { setTimeout as delay } from "node:timers/promises";
import { readCard, type Card } from "@bifurcate/control/doctor/card";
import { machineFiles } from "@bifurcate/control/doctor/files";
import { comparisonNetns } from "@bifurcate/control/doctor/machine";
import { isLinkLocal } from "@bifurcate/control/doctor/mechanisms/mechanism";
import type { Kernel, Netns } from "@bifurcate/control/kernel";
import { stateDirectory } from "@bifurcate/control/transaction/journal";
import { ip } from "@bifurcate/lab/tools";
import { inUse } from "./measure-all.js";

/** A card, and the card at the other end of its wire. */
export interface SpareWire {
  readonly card: string;
  readonly peer: string;
}

/** A group of link scope that nobody else uses (RFC 4291, 2.7; transient). */
const GROUP = "ff12::4266";
/** How often each card is heard for, and the time between, in milliseconds. */
const ASKS = 10;
const BETWEEN_MS = 100;
/** How long a card may need for carrier and a link-local address, in milliseconds. */
const READY_MS = 15_000;

/**
 * Looks for spare cards on the PCI bus that are wired to each other, and calls `use` with them, up. What was down is
 * down again afterwards. Gives null, with nothing changed, where there are none.
 */
export async function withSpareWires<T>(
  kernel: Kernel,
  netns: Netns,
  signal: AbortSignal,
  use: (wires: readonly SpareWire[]) => Promise<T>,
): Promise<T | null> {
  const cards = spareCards(kernel, netns);
  if (cards.length < 2) return null;
  const raised = cards.filter(({ facts }) => !facts.link.up).map(({ facts }) => facts.link.name);
  try {
    for (const name of raised) await ip([`link set dev ${name} up`]);
    const names = await ready(netns, cards, signal);
    const wires = pairs(await whoHears(names)).map((pair) => oriented(pair, cards));
    return wires.length === 0 ? null : await use(wires);
  } finally {
    for (const name of raised) await ip([`link set dev ${name} down`]);
  }
}

/**
 * Calls `use` with the peer in a namespace of its own, so that the kernel sends between the two by the wire, and takes
 * the namespace away again.
 */
export async function withPeerAway<T>(
  netns: Netns,
  { card, peer }: SpareWire,
  use: (peerNetns: string) => Promise<T>,
): Promise<T> {
  const name = comparisonNetns(process.pid);
  await ip([`netns add ${name}`]);
  try {
    await ip([`link set dev ${peer} netns ${name}`]);
    await ip([`link set dev ${peer} up`], name);
    // The card's carrier goes and comes with its peer's.
    await addressed(name, peer);
    await addressed(null, card);
    return await use(name);
  } finally {
    // A card of the PCI bus would survive its namespace, in the machine's first one, which need not be ours.
    await ip([`link set dev ${peer} netns ${process.pid}`], name).catch(() => undefined);
    await ip([`netns del ${name}`]);
    if (netns.links().some((link) => link.name === peer)) await ip([`link set dev ${peer} up`]);
  }
}

function spareCards(kernel: Kernel, netns: Netns): Card[] {
  return netns
    .links()
    .filter((link) => link.ethernet && !link.loopback)
    .map(({ name }) => readCard(kernel, netns, machineFiles, name, stateDirectory()))
    .filter((card) => card.pci !== null && inUse(card) === null);
}

/** Names of the cards that carry and have a usable link-local address; the others have had their time. */
async function ready(netns: Netns, cards: readonly Card[], signal: AbortSignal): Promise<string[]> {
  const names = cards.map(({ facts }) => facts.link.name);
  const until = Date.now() + READY_MS;
  for (;;) {
    signal.throwIfAborted();
    const here: string[] = [];
    for (const name of names) if (await isAddressed(null, name)) here.push(name);
    if (here.length === names.length || Date.now() > until) return here;
    await delay(BETWEEN_MS);
  }
}

/** Waits for a link-local address that may be used; what never gets one fails where it is needed. */
async function addressed(netns: string | null, name: string): Promise<void> {
  const until = Date.now() + READY_MS;
  while (!(await isAddressed(netns, name)) && Date.now() < until) await delay(BETWEEN_MS);
}

/** Carrier, and an address that duplicate address detection is done with (RFC 4862, 5.4). */
async function isAddressed(netns: string | null, name: string): Promise<boolean> {
  const text = await ip([`-o -6 addr show dev ${name} scope link -tentative`], netns ?? undefined);
  const up = await ip([`-o link show dev ${name}`], netns ?? undefined);
  const [, address] = /inet6 ([0-9a-f:]+)\//.exec(text) ?? [];
  return / state UP /.test(up) && address !== undefined && isLinkLocal({ family: 6, address });
}

/** Who hears whom: each card asks the group on its wire, and all listen. */
async function whoHears(names: readonly string[]): Promise<Map<string, Set<string>>> {
  const heard = new Map(names.map((name) => [name, new Set<string>()]));
  const sockets: Socket[] = [];
  try {
    for (const name of names) {
      const socket = createSocket({ type: "udp6", reuseAddr: true });
      sockets.push(socket);
      // Bound to the group on this interface alone: what comes here came by this wire.
      await new Promise<void>((resolve, reject) => {
        socket.once("error", reject).bind(PORT, `${GROUP}%${name}`, resolve);
      });
      socket.on("error", () => undefined);
      socket.addMembership(GROUP, `::%${name}`);
      socket.on("message", (data) => heard.get(name)!.add(data.toString("utf8")));
    }
    const asking = await Promise.all(names.map(asker));
    sockets.push(...asking);
    for (let n = 0; n < ASKS; n += 1) {
      for (const [at, name] of names.entries()) asking[at]!.send(name, PORT, `${GROUP}%${name}`);
      await delay(BETWEEN_MS);
    }
  } finally {
    for (const socket of sockets) socket.close();
  }
  return heard;
}

/** Of the range for private use (RFC 6335, 6). */
const PORT = 52016;

async function asker(name: string): Promise<Socket> {
  const socket = createSocket("udp6");
  socket.on("error", () => undefined);
  await new Promise<void>((resolve) => socket.bind(0, resolve));
  socket.setMulticastLoopback(false);
  socket.setMulticastInterface(`::%${name}`);
  return socket;
}

/** Two that hear each other and no third card of ours: behind a switch there is no telling who loses what. */
export function pairs(heard: ReadonlyMap<string, ReadonlySet<string>>): [string, string][] {
  return [...heard].flatMap(([name, others]): [string, string][] => {
    const [other, ...more] = [...others].filter((each) => each !== name);
    if (other === undefined || more.length > 0 || name > other) return [];
    const back = [...(heard.get(other) ?? [])].filter((each) => each !== other);
    return back.length === 1 && back[0] === name ? [[name, other]] : [];
  });
}

/** The end to measure on: a virtio card is everybody's, so the other one; of two of a kind the first on the bus. */
function oriented([a, b]: readonly [string, string], cards: readonly Card[]): SpareWire {
  const place = (name: string): string => {
    const card = cards.find(({ facts }) => facts.link.name === name)!;
    return `${card.accessPlatform === null ? 0 : 1} ${card.pci!.address}`;
  };
  return place(a) < place(b) ? { card: a, peer: b } : { card: b, peer: a };
}
