// Where an outsider's port may lie: in a network namespace that is the client's own, whatever it claims to be.
import { BifurcateError, messageOf } from "../errors.js";
import type { ClientNetns } from "./machine.js";

/** Who asks, and from where; `netns` is the kernel's word, not the client's. */
export interface Outsider {
  readonly uid: number;
  netns(): ClientNetns;
}

/**
 * The network namespace that the client asks from, if it belongs to a user namespace that the client made: there it has
 * every right that an AF_XDP socket asks for, and none elsewhere. The caller closes it.
 *
 * @param broker Inode of the namespace that the broker serves.
 * @throws E_LEASE_UNSUPPORTED where it is another's, or the broker's.
 */
export function ownNamespace(what: string, { uid, netns }: Outsider, broker: number): ClientNetns {
  const refused = (why: string, cause?: unknown): BifurcateError =>
    new BifurcateError("E_LEASE_UNSUPPORTED", {
      what,
      why,
      next: "Run it by `bifurcate foreign`, which makes a user and a network namespace first.",
      cause,
    });
  let found: ClientNetns;
  let owner: number;
  try {
    found = netns();
  } catch (thrown) {
    throw refused(`the client's network namespace cannot be told: ${messageOf(thrown)}`, thrown);
  }
  try {
    owner = found.owner;
  } catch (thrown) {
    found.close();
    throw refused(`whose the client's network namespace is, cannot be told: ${messageOf(thrown)}`, thrown);
  }
  const why =
    found.inode === broker
      ? "the client asks from the card's own network namespace"
      : owner !== uid
        ? `the client's network namespace belongs to user ${owner}, and it is user ${uid}`
        : null;
  if (why === null) return found;
  found.close();
  throw refused(why);
}
