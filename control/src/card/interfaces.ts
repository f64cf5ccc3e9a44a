// The interfaces of a card: saved before they go, and made the same again after they came back.
import { setTimeout as delay } from "node:timers/promises";
import { messageOf } from "../errors.js";
import type { Link } from "../kernel.js";
import type { SavedInterface } from "./record.js";

/** The machine's first network namespace, as far as an interface's coming and going needs it. */
export interface CardNetns {
  links(): Link[];
  saveStanding(ifindex: number): Uint8Array[];
  restoreStanding(saved: Uint8Array[], before: number, now: number): string[];
  renameLink(ifindex: number, name: string): void;
  setLink(ifindex: number, change: { up?: boolean; mtu?: number; mac?: number[] }): void;
}

/** What stands on the interfaces of those names. */
export function saveInterfaces(netns: CardNetns, names: readonly string[]): SavedInterface[] {
  const links = netns.links();
  return names.flatMap((name) => {
    const link = links.find((each) => each.name === name);
    if (link === undefined) return [];
    const { index, mac, mtu, up } = link;
    const standing = netns.saveStanding(index).map((each) => Buffer.from(each).toString("hex"));
    return [{ name, index, mac, mtu, up, standing }];
  });
}

/** What came of restoring. */
export interface RestoredInterface {
  readonly name: string;
  /** What could not be put back, in words. */
  readonly left: readonly string[];
}

/** Longest wait for a driver's interface, in ms: some drivers make it a moment after they have the card. */
const PATIENCE_MS = 5000;
const LOOK_MS = 20;

/**
 * Waits for the card's interfaces and makes them what they were: name, MTU, MAC address, up, addresses, routes.
 * @param names Gives the names of the card's interfaces now.
 */
export async function restoreInterfaces(
  netns: CardNetns,
  saved: readonly SavedInterface[],
  names: () => readonly string[],
): Promise<RestoredInterface[]> {
  const end = Date.now() + PATIENCE_MS;
  while (names().length < saved.length && Date.now() < end) await delay(LOOK_MS);
  const there = names();
  const links = netns.links().filter((each) => there.includes(each.name));
  const free = new Set(links);
  return saved.map((each, place) => {
    // By the address that the card has burnt in; by its place where that was changed.
    const link = links.find((one) => free.has(one) && one.mac === each.mac) ?? links[place];
    if (link === undefined) return { name: each.name, left: ["its driver made no interface"] };
    free.delete(link);
    return { name: each.name, left: restoreOne(netns, each, link) };
  });
}

function restoreOne(netns: CardNetns, saved: SavedInterface, link: Link): string[] {
  const left: string[] = [];
  const attempt = (what: string, change: () => void): void => {
    try {
      change();
    } catch (thrown) {
      left.push(`${what}: ${messageOf(thrown)}`);
    }
  };
  const { index } = link;
  if (link.name !== saved.name) attempt(`name ${saved.name}`, () => netns.renameLink(index, saved.name));
  if (link.mac !== saved.mac) {
    const mac = saved.mac.split(":").map((byte) => parseInt(byte, 16));
    attempt(`MAC address ${saved.mac}`, () => netns.setLink(index, { mac }));
  }
  if (link.mtu !== saved.mtu) attempt(`MTU ${saved.mtu}`, () => netns.setLink(index, { mtu: saved.mtu }));
  // Routes want an interface that is up.
  if (link.up !== saved.up) {
    attempt(saved.up ? "up" : "down", () => netns.setLink(index, { up: saved.up }));
  }
  const standing = saved.standing.map((each) => Uint8Array.from(Buffer.from(each, "hex")));
  attempt("addresses and routes", () => {
    left.push(...netns.restoreStanding(standing, saved.index, index));
  });
  return left;
}
