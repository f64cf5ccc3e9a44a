// Which flows of a card are leased already: two leases never share a frame.
import { BifurcateError } from "../errors.js";
import type { LeaseRecord } from "../lease/record.js";
import { steers } from "../lease/state.js";
import { compileFlow } from "../steering/compile-flow.js";

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
