// Measures every mechanism that a card has ready, one after another; says of each other why it was not measured.

import {
  BASELINE,
  BifurcateError,
  changesOf,
  findLink,
  isLinkLocal,
  KNOWN,
  messageOf,
  probeMechanisms,
  settingsOf,
  type Card,
  type Machine,
  type Netns,
  type Outcome,
  type Settings,
} from "@bifurcate/control";
import { setTimeout as delay } from "node:timers/promises";
import { overRdma } from "./rdma.js";
import { measure, type Means, type Wire, type WireEnd } from "./phases.js";

/** What to measure on, and how. */
export interface MeasureAllOptions {
  readonly machine: Machine;
  readonly card: Card;
  /** The card's namespace, open. */
  readonly netns: Netns;
  readonly wire: Wire;
  /** Of each phase. */
  readonly seconds: number;
  /** The command that a reader types to have the same. */
  readonly command: string;
  readonly signal: AbortSignal;
  /** Told what is being measured. */
  readonly progress: (text: string) => void;
}

/** How each mechanism that can be measured receives. */
const MEANS: Readonly<Record<string, Means>> = {
  [BASELINE]: { kind: "socket" },
  AF_PACKET: { kind: "split", options: { backend: "af_packet" } },
  "AF_XDP copy": { kind: "split", options: { backend: "af_xdp", zeroCopy: "off" } },
  "AF_XDP zero-copy": { kind: "split", options: { backend: "af_xdp", zeroCopy: "require" } },
  "queue lease": { kind: "split", options: { backend: "af_xdp", steering: "lease" } },
  "vhost-user": { kind: "vhost-user" },
};

/** Why a mechanism has no means here, where it lacks nothing. */
const UNMEASURED =
  "the card would have to leave the kernel's driver, which compare does not do by itself: docs/direct-access.md";
/** The same of verbs. */
const NO_RDMA =
  "raw packets need flow rules of the card, and datagrams an RDMA device at both ends of the wire: docs/verbs.md";

/** How long a card may take to be as before when a mechanism has given it back (igb's link), in milliseconds. */
const BACK_MS = 15_000;

/** Measures. @throws E_INTERFACE_GONE, E_CHANGED_UNDERNEATH, E_MEASUREMENT when it was interrupted. */
export async function measureAll(options: MeasureAllOptions): Promise<Map<string, Outcome>> {
  const { machine, card, netns, wire, seconds, command, signal, progress } = options;
  const { link } = card.facts;
  const before = settingsOf(netns, findLink(netns.links(), link.name));
  const states = new Map(probeMechanisms({ machine, card }).map((state) => [state.name, state]));
  const outcomes = new Map<string, Outcome>();
  for (const mechanism of Object.keys(KNOWN)) {
    const datagrams = mechanism === "verbs" ? overRdma(wire) : undefined;
    const means = datagrams ?? MEANS[mechanism];
    const lacks = states.get(mechanism)?.lacks ?? [];
    // Two processes need no more than memory, huge pages are advice; and datagrams need no raw packets.
    if (lacks.length > 0 && mechanism !== "vhost-user" && datagrams === undefined) {
      outcomes.set(mechanism, { why: lacks.map(({ what }) => what).join("; ") });
      continue;
    }
    if (means === undefined) {
      outcomes.set(mechanism, { why: mechanism === "verbs" ? NO_RDMA : UNMEASURED });
      continue;
    }
    progress(`measuring ${mechanism}`);
    try {
      outcomes.set(mechanism, { measured: await measure(wire, means, seconds, signal), by: command });
    } catch (thrown) {
      if (signal.aborted) throw interrupted(thrown);
      outcomes.set(mechanism, { why: messageOf(thrown) });
    }
    await unchanged(netns, link.name, link.index, before, signal);
  }
  return outcomes;
}

function interrupted(cause: unknown): BifurcateError {
  return new BifurcateError("E_MEASUREMENT", {
    what: "measure the mechanisms",
    why: "it was interrupted",
    cause,
  });
}

/** What was measured before and after a change belongs to two different cards. */
async function unchanged(
  netns: Netns,
  ifname: string,
  ifindex: number,
  before: Settings,
  signal: AbortSignal,
): Promise<void> {
  const what = `measure on ${ifname}`;
  const until = Date.now() + BACK_MS;
  for (;;) {
    const link = netns.links().find((each) => each.name === ifname);
    if (link?.index !== ifindex) {
      const why =
        link === undefined
          ? "it was deleted, or moved to another namespace"
          : "another card has its name now";
      throw new BifurcateError("E_INTERFACE_GONE", {
        what,
        why,
        next: "Compare again when the card is back.",
      });
    }
    const changes = changesOf(before, settingsOf(netns, link));
    if (changes.length === 0) return;
    if (Date.now() > until || signal.aborted) {
      throw new BifurcateError("E_CHANGED_UNDERNEATH", {
        what,
        why: `the card changed meanwhile: ${changes.join("; ")}`,
        next: "Compare again: what was measured belongs to two different cards.",
        data: { changes },
      });
    }
    await delay(100);
  }
}

/** An end of the wire by its name; E_BAD_OPTION where it has no link-local address, which the measurement uses. */
export function wireEnd(netns: Netns, name: string | null, ifname: string): WireEnd {
  const link = findLink(netns.links(), ifname);
  const own = netns.addresses().find((each) => each.ifindex === link.index && isLinkLocal(each));
  if (!link.up) {
    throw new BifurcateError("E_INTERFACE_DOWN", {
      what: `measure on ${ifname}`,
      why: "it is administratively down",
    });
  }
  if (own === undefined) {
    throw new BifurcateError("E_BAD_OPTION", {
      what: `measure on ${ifname}`,
      why: "it has no IPv6 link-local address, which the measurement uses, so that it changes no addresses",
      next: `sudo sysctl -w net.ipv6.conf.${ifname}.disable_ipv6=0, and take it down and up.`,
    });
  }
  return { ifname, netns: name, mac: link.mac, address: own.address };
}

/** Why the kernel needs a card, in words; null for a spare one. */
export function inUse({ facts }: Card): string | null {
  const { link, addresses, routes, sessions, otherSplits, xdp } = facts;
  const own = addresses.filter((each) => !isLinkLocal(each)).map((each) => each.address);
  const through = routes
    .filter((each) => !/^(fe[89ab]|ff)/i.test(each.destination))
    .map((each) => each.destination);
  const why = [
    ...(sessions.length > 0 ? ["somebody is logged in over it"] : []),
    ...(own.length > 0 ? [`it has the address ${own.join(", ")}`] : []),
    ...(own.length === 0 && through.length > 0 ? [`routes lead over it (${through.join(", ")})`] : []),
    ...(otherSplits.length > 0 ? [`the split ${otherSplits.map((each) => each.id).join(", ")} has it`] : []),
    ...(otherSplits.length === 0 && xdp !== null ? [`the XDP program ${xdp.programId} is attached`] : []),
    ...(link.kind === "bridge" || link.master !== null ? ["it is part of a bridge or bond"] : []),
  ];
  return why.length === 0 ? null : why.join("; ");
}
