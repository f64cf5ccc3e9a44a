// Sockets of a lease that has ended: whether a copy is open somewhere, and what is done about who does not let go.
import { errnoOf, messageOf } from "../errors.js";
import { isAlive } from "../facts/processes.js";
import type { LeaseRecord, OwnQueues } from "../lease/record.js";
import type { Audit } from "./audit.js";
import type { BrokerNetns, ProcessHandle } from "./machine.js";
import type { PortNames } from "./port.js";

/**
 * Whether a copy of one of its sockets is open somewhere. Of an interface that is gone none is bound. Where one cannot be
 * looked at now, since the broker has no descriptor left or the interface is down, say, nothing is known of its sockets,
 * and what they hold is nobody else's. So it is where they are closed, and the kernel has not let go of the queue yet.
 * @param card The card's name now; undefined: it is gone.
 * @param patienceMs How long the kernel may take for that; everybody waits meanwhile.
 * @returns null where it cannot be told.
 */
export function isHeld(
  netns: BrokerNetns,
  own: OwnQueues | null,
  names: PortNames,
  card: string | undefined,
  patienceMs: number,
): boolean | null {
  const ifname = own === null ? names.far : card;
  if (ifname === undefined) return false;
  let held: false | null = false;
  for (const queue of own?.queues ?? [0]) {
    try {
      // All are let go of together: where the first is not, no other is waited for.
      const now = netns.isQueueHeld(ifname, queue, held === null ? 0 : patienceMs);
      if (now === true) return true;
      held = now === null ? null : held;
    } catch (thrown) {
      if (!["ENODEV", "ENOENT"].includes(errnoOf(thrown) ?? "")) held = null;
    }
  }
  return held;
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
