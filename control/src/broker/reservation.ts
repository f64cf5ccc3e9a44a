// What is written down of a lease before anything of it is made: whose it is to be, and where.
import { randomBytes } from "node:crypto";
import { BifurcateError } from "../errors.js";
import { bootId, identify } from "../facts/processes.js";
import type { LeaseRecord } from "../lease/record.js";
import type { LeaseRequest } from "../protocol/messages.js";
import type { Owner } from "./live.js";
import type { Rule } from "./policy.js";
import { portNames } from "./port.js";

/** Where a lease is to be: its card, its slot in the card's program, and queues of its own. */
export type Place = Pick<LeaseRecord, "card" | "slot" | "own">;

/** Everything that is known of it. */
export interface Reserved {
  readonly id: string;
  readonly owner: Owner;
  readonly request: LeaseRequest;
  readonly rule: Rule;
  /** Bytes of memory that it is given. */
  readonly memory: number;
  readonly on: Place;
  /** The network namespace that is served. */
  readonly netnsInode: number;
}

/** Who asks. @throws E_LEASE_DENIED when that process has ended. */
export function ownerOf({ uid, pid }: { readonly uid: number; readonly pid: number }, what: string): Owner {
  const identity = identify(pid);
  if (identity !== null) return { identity, uid };
  throw new BifurcateError("E_LEASE_DENIED", { what, why: "the process that asked has ended" });
}

/** A name that no lease has. */
export function freshId(taken: (id: string) => boolean): string {
  for (;;) {
    const id = `lease-${randomBytes(4).toString("hex")}`;
    if (!taken(id)) return id;
  }
}

/** The record of a lease that is made from now on. */
export function reservation({ id, owner, request, rule, memory, on, netnsInode }: Reserved): LeaseRecord {
  const port = on.own === null && request.mechanism !== "vfio";
  return {
    version: 1,
    id,
    state: "reserved",
    since: new Date().toISOString(),
    bootId: bootId(),
    netnsInode,
    ...on,
    names: portNames(id, port, request.pass),
    client: { ...owner.identity, uid: owner.uid },
    rule: rule.name,
    draining: rule.draining,
    request,
    memory,
    granted: null,
  };
}
