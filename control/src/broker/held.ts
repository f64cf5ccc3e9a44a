// Sockets of a lease that has ended: whether a copy is open somewhere, and what is done about who does not let go.
import { messageOf } from "../errors.js";
import { isAlive } from "../facts/processes.js";
import type { LeaseRecord, OwnQueues } from "../lease/record.js";
import type { Audit } from "./audit.js";
import type { BrokerNetns, ProcessHandle } from "./machine.js";
import type { PortNames } from "./port.js";

/**
 * Whether a copy of one of its sockets is open somewhere.
 * @param card The card's name now; undefined: it is gone, and its sockets are unbound.
 */
export function isHeld(
  netns: BrokerNetns,
  own: OwnQueues | null,
  names: PortNames,
  card: string | undefined,
): boolean {
  const held = (ifname: string, queue: number): boolean => {
    try {
      return netns.isQueueHeld(ifname, queue);
    } catch {
      return false;
    }
  };
  if (own === null) return held(names.far, 0);
  return card !== undefined && own.queues.some((queue) => held(card, queue));
}

/**
 * Ends the client that does not let go, where the policy says so; who else may have a copy is not to be known.
 * @returns Whether that was tried.
 */
export function endHolder(
  { id, draining, client }: LeaseRecord,
  process: ProcessHandle | null,
  audit: Audit,
): boolean {
  if (draining !== "end-process" || process === null || !isAlive(client)) return false;
  const { uid, pid } = client;
  try {
    process.kill();
    audit.write({ event: "end-process", outcome: "done", uid, pid, lease: id });
  } catch (thrown) {
    audit.write({
      event: "end-process",
      outcome: "failed",
      uid,
      pid,
      lease: id,
      why: messageOf(thrown),
    });
  }
  return true;
}
