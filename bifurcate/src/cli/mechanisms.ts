// What each mechanism can do on a card, and why not: the same questions that a plan asks, without a request.

import type { Facts } from "@bifurcate/control/facts/facts";
import { LEASING_DRIVERS } from "@bifurcate/control/steering/drivers";
import {
  chooseWay,
  leaseRefusal,
  ownQueueRefusal,
  zeroCopyRefusal,
} from "@bifurcate/control/steering/ladder";
import { queuesOf } from "@bifurcate/control/steering/make-plan";

/** The ways that frames can take into user space, and what brings a flow to a queue of its own. */
export type MechanismName =
  "af_xdp driver" | "af_xdp generic" | "zero-copy" | "ntuple" | "queue lease" | "af_packet";

/** One mechanism on one card. */
export interface Mechanism {
  readonly name: MechanismName;
  readonly can: boolean;
  /** Why not; where it can, a remark or null. */
  readonly why: string | null;
}

/** What stands in the way of every mechanism, or null. */
function unusable(facts: Facts): string | null {
  if (facts.link.loopback) return "it is the loopback interface";
  if (!facts.link.ethernet) return "it carries no Ethernet frames";
  if (!facts.link.up) return "it is administratively down";
  return null;
}

function foreignProgram(facts: Facts): string | null {
  if (facts.xdp === null) return null;
  const { programId, owner } = facts.xdp;
  const holders = owner?.holders.map((each) => `${each.command} (pid ${each.pid})`).join(", ");
  return `the XDP program ${programId}${holders ? ` of ${holders}` : ""} is attached`;
}

/** Why no queue of the card can be leased: the kernel, the device, or a driver without queue management. */
function noLease(facts: Facts): string | null {
  const { driver } = facts.driver;
  const known = `${driver} is not among the drivers with queue management (${LEASING_DRIVERS.join(", ")})`;
  return leaseRefusal(facts) ?? (LEASING_DRIVERS.includes(driver) ? null : known);
}

/** What stands in the way of a split on a lease where the kernel would grant one, and what is lent out now. */
function leaseRemark(own: string | null, copies: string | null, lent: readonly number[]): string | null {
  const split = own ?? copies;
  const parts = [
    ...(split === null ? [] : [`not for a split: ${split}`]),
    ...(lent.length === 0 ? [] : [`leased now: queue ${lent.join(", ")}`]),
  ];
  return parts.length === 0 ? null : parts.join("; ");
}

/** All mechanisms, best first. */
export function mechanisms(facts: Facts): Mechanism[] {
  const general = unusable(facts);
  const attached = general ?? foreignProgram(facts);
  const way = (mode: "driver" | "generic"): string | null => {
    const request = { ifname: facts.link.name, flows: [], backend: "af_xdp", mode } as const;
    const { way: found, rungs } = chooseWay(facts, request);
    return found === null ? (rungs[0]?.why ?? "it cannot") : null;
  };
  const driver = attached ?? way("driver");
  const own = general ?? ownQueueRefusal(facts, { ifname: facts.link.name, flows: [] }, [], queuesOf(facts));
  const copies = driver ?? zeroCopyRefusal(facts, { backend: "af_xdp", mode: "driver" }, "whole-card");
  const whole = copies === null && own !== null ? `only with --flow all: ${own}` : null;
  // Before Linux 6.3 a kernel says nothing of what its drivers do with XDP.
  const unsure = facts.xdpFeatures === null ? "the kernel does not tell, it is tried" : null;
  const remarks = [unsure, whole].filter((each) => each !== null).join("; ");
  const mechanism = (name: MechanismName, why: string | null, remark: string | null = null): Mechanism => ({
    name,
    can: why === null,
    why: why ?? remark,
  });
  return [
    mechanism("af_xdp driver", driver, unsure),
    mechanism("af_xdp generic", attached ?? way("generic")),
    mechanism("zero-copy", copies, remarks === "" ? null : remarks),
    mechanism(
      "ntuple",
      own,
      facts.ntuple === null ? null : `${facts.ntuple.capacity - facts.ntuple.rules.length} rules free`,
    ),
    mechanism("queue lease", general ?? noLease(facts), leaseRemark(own, copies, facts.leases.queues)),
    mechanism("af_packet", general, "copies every frame"),
  ];
}
