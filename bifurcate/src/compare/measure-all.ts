// Measures every mechanism that a card has ready, one after another; says of each other why it was not measured.

import { KNOWN } from "@bifurcate/control/compare/known/index";
import type { Measurement, Outcome } from "@bifurcate/control/compare/measurement";
import type { Card } from "@bifurcate/control/doctor/card";
import type { Machine } from "@bifurcate/control/doctor/machine";
import { probeMechanisms } from "@bifurcate/control/doctor/mechanisms/index";
import { isLinkLocal } from "@bifurcate/control/doctor/mechanisms/mechanism";
import { BifurcateError, messageOf } from "@bifurcate/control/errors";
import { findLink } from "@bifurcate/control/facts/facts";
import { changesOf, settingsOf, type Settings } from "@bifurcate/control/facts/settings";
import type { Netns } from "@bifurcate/control/kernel";
import { setTimeout as delay } from "node:timers/promises";
import { Bystanders } from "./bystanders.js";
import { disturbance, meansFor, type Leave, type Means } from "./means.js";
import { measure, type Pace, type Wire, type WireEnd } from "./phases.js";
import { withRdma } from "./rdma.js";
import { whileTaken } from "./taking.js";

/** What to measure on, and how. */
export interface MeasureAllOptions {
  readonly machine: Machine;
  readonly card: Card;
  /** The card's namespace, open. */
  readonly netns: Netns;
  readonly wire: Wire;
  readonly leave: Leave;
  /** The mechanisms to measure; all where left out. */
  readonly only?: readonly string[];
  /** Another card's measurement has what stands on no card. */
  readonly beside: string | null;
  readonly pace: Pace;
  /** The command that a reader types to have the same. */
  readonly command: string;
  readonly signal: AbortSignal;
  /** Told what is being measured. */
  readonly progress: (text: string) => void;
}

/** Stands on no card: measured once. */
const CARDLESS = "vhost-user";

/** How long a card may take to be as before when a mechanism has given it back (igb's link), in milliseconds. */
const BACK_MS = 15_000;

/** Measures. @throws E_INTERFACE_GONE, E_CHANGED_UNDERNEATH, E_MEASUREMENT when it was interrupted. */
export async function measureAll(options: MeasureAllOptions): Promise<Map<string, Outcome>> {
  const { card, netns } = options;
  const { link } = card.facts;
  const before = settingsOf(netns, findLink(netns.links(), link.name));
  const outcomes = new Map<string, Outcome>();
  const bystanders = new Bystanders(options.wire);
  try {
    await measureEach(options, bystanders, before, outcomes);
  } finally {
    await bystanders.end();
  }
  return outcomes;
}

async function measureEach(
  options: MeasureAllOptions,
  bystanders: Bystanders,
  before: Settings,
  outcomes: Map<string, Outcome>,
): Promise<void> {
  const { card, netns, only, command, signal, progress } = options;
  const { link } = card.facts;
  const names = Object.keys(KNOWN).filter((name) => only === undefined || only.includes(name));
  // A card that was away comes back as another interface, which the kernel's own traffic knows nothing of.
  for (const mechanism of names.sort((a, b) => disturbance(a) - disturbance(b))) {
    const index = findLink(netns.links(), link.name).index;
    const why = outOfReach(mechanism, options);
    const means = mechanism === "verbs" ? null : meansFor(mechanism, card, options.leave);
    if (why !== null || (means !== null && "why" in means)) {
      outcomes.set(mechanism, { why: why ?? (means as { why: string }).why });
      continue;
    }
    progress(`measuring ${mechanism} on ${link.name}`);
    try {
      const measured = await (means === null
        ? datagrams(options, bystanders)
        : byMeans(means, options, bystanders));
      outcomes.set(mechanism, { measured, by: command });
    } catch (thrown) {
      if (signal.aborted) throw interrupted(thrown);
      outcomes.set(mechanism, { why: messageOf(thrown) });
    }
    await unchanged(netns, link.name, disturbance(mechanism) === 2 ? null : index, before, signal);
  }
}

/** Why a mechanism cannot be measured, as its probe knows; null where it may be tried. */
function outOfReach(mechanism: string, { machine, card, beside }: MeasureAllOptions): string | null {
  if (mechanism === CARDLESS) {
    // Two processes need no more than memory: huge pages are advice.
    return beside === null ? null : `it stands on no card: it was measured beside ${beside}`;
  }
  const lacks = probeMechanisms({ machine, card }).find(({ name }) => name === mechanism)?.lacks ?? [];
  // An RDMA device can be made for the measurement, where the library and the kernel's part are there.
  const able = mechanism === "verbs" && machine.libibverbs && machine.modules["ib_uverbs"] !== "absent";
  return lacks.length === 0 || able ? null : lacks.map(({ what }) => what).join("; ");
}

function byMeans(
  means: Means,
  { wire, pace, signal }: MeasureAllOptions,
  bystanders: Bystanders,
): Promise<Measurement> {
  const run = (): Promise<Measurement> => measure(wire, means, bystanders, pace, signal);
  return means.kind === "taken" ? whileTaken(means, run) : run();
}

function datagrams(
  { machine, wire, pace, signal }: MeasureAllOptions,
  bystanders: Bystanders,
): Promise<Measurement> {
  return withRdma(wire, machine.rdma, (means) => measure(wire, means, bystanders, pace, signal));
}

function interrupted(cause: unknown): BifurcateError {
  return new BifurcateError("E_MEASUREMENT", {
    what: "measure the mechanisms",
    why: "it was interrupted",
    cause,
  });
}

/** What was measured before and after a change belongs to two different cards. `ifindex`: null where it came back as another interface. */
async function unchanged(
  netns: Netns,
  ifname: string,
  ifindex: number | null,
  before: Settings,
  signal: AbortSignal,
): Promise<void> {
  const what = `measure on ${ifname}`;
  const until = Date.now() + BACK_MS;
  for (;;) {
    const link = netns.links().find((each) => each.name === ifname);
    if (link === undefined || (ifindex !== null && link.index !== ifindex)) {
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
export function inUse({ facts, above, pci }: Card): string | null {
  const { link, addresses, routes, sessions, otherSplits, xdp } = facts;
  const functions = pci?.virtualFunctions.now ?? [];
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
    ...(link.kind === "bridge" || (link.master !== null && above.length === 0)
      ? ["it is part of a bridge or bond"]
      : []),
    ...above,
    ...(functions.length > 0 ? [`it has virtual functions: ${functions.join(", ")}`] : []),
  ];
  return why.length === 0 ? null : why.join("; ");
}
