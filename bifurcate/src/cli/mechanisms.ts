// What each mechanism can do on a card, and why not: the same questions that a plan asks, without a request.

import type { Facts } from "@bifurcate/control";
import { chooseWay, ownQueueRefusal, zeroCopyRefusal } from "@bifurcate/control/steering/ladder";
import { queuesOf } from "@bifurcate/control/steering/make-plan";

/** The ways that frames can take into user space, and what brings a flow to a queue of its own. */
export type MechanismName = "af_xdp driver" | "af_xdp generic" | "zero-copy" | "ntuple" | "af_packet";

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
  const unsure =
    copies === null && facts.xdpFeatures === null ? "the kernel does not tell; tried at bind" : null;
  const mechanism = (name: MechanismName, why: string | null, remark: string | null = null): Mechanism => ({
    name,
    can: why === null,
    why: why ?? remark,
  });
  return [
    mechanism("af_xdp driver", driver),
    mechanism("af_xdp generic", attached ?? way("generic")),
    mechanism("zero-copy", copies, whole ?? unsure),
    mechanism(
      "ntuple",
      own,
      facts.ntuple === null ? null : `${facts.ntuple.capacity - facts.ntuple.rules.length} rules free`,
    ),
    mechanism("af_packet", general, "copies every frame"),
  ];
}
