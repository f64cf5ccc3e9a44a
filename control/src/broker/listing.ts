// A lease as those who may see it are shown it.
import type { LeaseRecord } from "../lease/record.js";
import type { ListedLease } from "../protocol/messages.js";
import { poolBytes } from "./policy.js";

/** What PROTOCOL.md says of a lease in a list. */
export function listed({ id, state, card, request, client, since, own = null }: LeaseRecord): ListedLease {
  return {
    id,
    state,
    device: card.name,
    flows: request.flows,
    mechanism: own === null ? "port" : "queue",
    transmit: request.transmit,
    pass: request.pass,
    uid: client.uid,
    pid: client.pid,
    memory: poolBytes(request),
    since,
  };
}
