// What is leased already: flows of a card, since two leases never share a frame, and what a user has by a rule.
import { BifurcateError } from "../errors.js";
import type { LeaseRecord } from "../lease/record.js";
import { steers } from "../lease/state.js";
import { compileFlow } from "../steering/compile-flow.js";
import type { Holding } from "./policy.js";
import { memoryOf } from "./pool.js";

/** @throws E_FLOW_TAKEN where a flow may meet another lease's of that card. */
export function checkTaken(
  what: string,
  ifindex: number,
  flows: readonly string[],
  leases: readonly LeaseRecord[],
): void {
  const mine = flows.map(compileFlow);
  for (const { card, state, request } of leases) {
    // One that has ended, and whose descriptors are still open somewhere, has no flow.
    if (card.ifindex !== ifindex || !(state === "reserved" || steers(state))) continue;
    for (const text of request.flows) {
      const theirs = compileFlow(text);
      const taken = mine.find((each) => each.overlaps(theirs));
      if (taken === undefined) continue;
      // Whose it is, is not for everybody to know.
      throw new BifurcateError("E_FLOW_TAKEN", {
        what,
        why: `'${taken.text}' overlaps a flow that is leased already`,
        next: "Choose a flow that does not overlap, or wait until the other lease ends.",
        data: { flow: taken.text },
      });
    }
  }
}

/** What a user has by that rule. */
export function holding(leases: readonly LeaseRecord[], uid: number, rule: string): Holding {
  const mine = leases.filter((each) => each.client.uid === uid && each.rule === rule);
  return {
    leases: mine.length,
    memory: mine.reduce((sum, each) => sum + memoryOf(each), 0),
  };
}
