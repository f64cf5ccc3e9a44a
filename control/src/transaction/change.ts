// One lasting setting: makes a change, tells whether it holds, and undoes it only where it is still ours.
import { BifurcateError, errnoOf, wrapError, type ErrorCode } from "../errors.js";
import type { Channels, Link, Netns } from "../kernel.js";
import { makeFunction, removeFunctions, virtualFunctions } from "../card/virtual-function.js";
import { tableOrigin } from "../steering/carveout.js";
import { receiveQueues } from "../steering/make-plan.js";
import type { Change, Step } from "../steering/plan.js";
import { hexOf, sameRule } from "./ntuple-rule.js";

/** Makes the change; throws what the kernel answered. */
export function perform(netns: Netns, ifname: string, change: Change): void {
  switch (change.kind) {
    case "feature":
      return netns.setFeature(ifname, change.feature, change.on);
    case "channels":
      return netns.setChannels(ifname, change.channels);
    case "rss":
      return netns.setRss(ifname, change.indirection);
    case "ntuple":
      if (change.bytes === null) return netns.deleteNtupleRule(ifname, change.location);
      return netns.insertNtupleRule(ifname, {
        location: change.location,
        bytes: Uint8Array.from(Buffer.from(change.bytes, "hex")),
      });
    case "lease": {
      const links = netns.links();
      if (!change.present) {
        const lessee = lesseeOf(links, change.name);
        return lessee === undefined ? undefined : netns.deleteLink(lessee.index);
      }
      const card = links.find((each) => each.name === ifname);
      if (card === undefined) return;
      netns.leaseQueues(card.index, change.queues, change.name);
      return;
    }
    case "virtual-function": {
      if (!change.present) return removeFunctions(change.card, change.probes);
      makeFunction(change.card, change.probes);
      const link = netns.links().find((each) => each.name === ifname);
      const mac = change.mac.split(":").map((byte) => parseInt(byte, 16));
      if (link === undefined) {
        const why = "its interface went while the virtual function was made";
        throw new BifurcateError("E_INTERFACE_GONE", { what: `set the virtual function of ${ifname}`, why });
      }
      netns.setVirtualFunction(link.index, 0, mac, 0, true);
      return;
    }
    case "ingress-filter": {
      // Made by the owner of the program; whoever undoes it needs its name alone.
      const link = netns.links().find((each) => each.name === ifname);
      if (!change.present && link !== undefined) netns.deleteTcIngress(link.index, change.name, change.qdisc);
    }
  }
}

/** Whether the setting has that value now. */
export function holds(netns: Netns, ifname: string, change: Change): boolean {
  switch (change.kind) {
    case "feature":
      return netns.features(ifname)[change.feature]?.active === change.on;
    case "channels": {
      const now = netns.channels(ifname)?.now;
      return now !== undefined && sameChannels(now, change.channels);
    }
    case "rss": {
      const now = netns.rss(ifname)?.indirection ?? [];
      const { indirection } = change;
      if (indirection === null) {
        const channels = netns.channels(ifname)?.now;
        return tableOrigin(now, channels === undefined ? 1 : receiveQueues(channels)) === "default";
      }
      return now.length === indirection.length && now.every((queue, i) => queue === indirection[i]);
    }
    case "ntuple": {
      const there = netns.ntupleRules(ifname)?.find((rule) => rule.location === change.location);
      if (change.bytes === null) return there === undefined;
      return there !== undefined && sameRule(change.bytes, hexOf(there.bytes));
    }
    case "lease":
      // With a name of its own and made in one piece: where it is, the leases are.
      return (lesseeOf(netns.links(), change.name) !== undefined) === change.present;
    case "virtual-function":
      // One, as was made: more of them are others', and not ours to take away.
      return virtualFunctions(change.card) === (change.present ? 1 : 0);
    case "ingress-filter": {
      // Whether it stands is the attachment's to say; here it may always come, and is to be gone after an undo.
      const link = netns.links().find((each) => each.name === ifname);
      const there = link !== undefined && netns.tcIngress(link.index).filters.includes(change.name);
      return change.present || !there;
    }
  }
}

/** The netkit device of a lease. */
function lesseeOf(links: readonly Link[], name: string): Link | undefined {
  return links.find((each) => each.name === name && each.kind === "netkit");
}

function sameChannels(a: Channels, b: Channels): boolean {
  return a.rx === b.rx && a.tx === b.tx && a.combined === b.combined;
}

/** Whether a step can still be made, before anything of it is. @throws E_CARD_IN_USE */
export function checkStep(ifname: string, { apply, words }: Step): void {
  if (apply.kind !== "virtual-function" || !apply.present) return;
  const there = virtualFunctions(apply.card);
  if (there === 0) return;
  throw new BifurcateError("E_CARD_IN_USE", {
    what: `${words} on ${ifname}`,
    why: `it got ${there} virtual functions since the plan was made; their number can only be changed from 0`,
  });
}

/** Makes a step's change and reads it back. Errors: E_SETTING_REFUSED, E_RULES_FULL, E_NO_LEASE, E_QUEUE_BUSY, E_NO_SUCH_QUEUE, E_NOT_VERIFIED. */
export function applyStep(netns: Netns, ifname: string, step: Step): void {
  const what = `${step.words} on ${ifname}`;
  try {
    if (step.apply.kind === "ntuple" && !holds(netns, ifname, step.undo)) {
      // Inserting would replace somebody's rule without a word.
      throw new BifurcateError("E_SETTING_REFUSED", {
        what,
        why: `location ${step.apply.location} got a rule since the plan was made`,
        next: "Split again: the next plan chooses another location.",
      });
    }
    perform(netns, ifname, step.apply);
  } catch (thrown) {
    throw wrapError(thrown, what, refusalCode(step.apply, errnoOf(thrown)));
  }
  if (!holds(netns, ifname, step.apply)) {
    throw new BifurcateError("E_NOT_VERIFIED", { what, why: "it reads back differently" });
  }
}

/** The code of a refused change whose errno says more than that it was refused. */
function refusalCode(change: Change, errno: string | null): ErrorCode {
  if (change.kind === "ntuple" && errno === "ENOSPC") return "E_RULES_FULL";
  if (change.kind !== "lease") return "E_SETTING_REFUSED";
  // net/core/netdev-genl.c netdev_nl_queue_create_doit().
  if (errno === "EBUSY") return "E_QUEUE_BUSY";
  if (errno === "ERANGE") return "E_NO_SUCH_QUEUE";
  return errno === "EINVAL" || errno === "EOPNOTSUPP" ? "E_NO_LEASE" : "E_SETTING_REFUSED";
}

/** What came of undoing one step. */
export type Undone = { readonly state: "undone" } | { readonly state: "left"; readonly why: string };

const UNDONE: Undone = { state: "undone" };

/** Undoes a step where the setting still has the value that the step gave it. Throws what the kernel answered. */
export function undoStep(netns: Netns, ifname: string, step: Step): Undone {
  if (!holds(netns, ifname, step.apply)) {
    const back = [step.undo, ...(step.was === undefined ? [] : [step.was])];
    return back.some((change) => holds(netns, ifname, change)) ? UNDONE : changed(step);
  }
  if (step.apply.kind === "feature" && step.apply.feature === "rx-ntuple-filter") {
    const rules = netns.ntupleRules(ifname)?.length ?? 0;
    if (rules > 0) {
      return { state: "left", why: `ntuple rules stay on: ${rules} that somebody else made would be lost` };
    }
  }
  try {
    perform(netns, ifname, step.undo);
  } catch (thrown) {
    // Two who undo the same at once: the second finds it done.
    if (!holds(netns, ifname, step.apply)) return UNDONE;
    throw thrown;
  }
  if (step.undo.kind !== "rss" && !holds(netns, ifname, step.undo)) {
    throw new BifurcateError("E_NOT_VERIFIED", {
      what: `undo: ${step.words} on ${ifname}`,
      why: "it reads back differently",
    });
  }
  return UNDONE;
}

function changed(step: Step): Undone {
  return { state: "left", why: `somebody changed it since: ${step.words}` };
}
