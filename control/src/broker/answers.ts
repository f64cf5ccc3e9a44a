// What the audit log says of the answer to a request for a lease, and of the lease's end.
import type { BifurcateError } from "../errors.js";
import type { LeaseRecord } from "../lease/record.js";
import type { LeaseEvent } from "../lease/state.js";
import type { GrantedLease, LeaseRequest } from "../protocol/messages.js";
import type { Audit } from "./audit.js";

/** Who asked. */
interface Who {
  readonly uid: number;
  readonly pid: number;
}

/** It was granted: by which rule, and what took how long. */
export function auditGranted(
  audit: Audit,
  { uid, pid }: Who,
  { id, device, mechanism, transmit, pass }: GrantedLease,
  flows: readonly string[],
  rule: string,
  took: unknown,
): void {
  const about = { uid, pid, device, flows, lease: id, rule };
  audit.write({ event: "lease", outcome: "done", ...about, mechanism, transmit, pass, took });
}

/** It was not, and why. */
export function auditDenied(
  audit: Audit,
  { uid, pid }: Who,
  { device, flows }: LeaseRequest,
  error: BifurcateError,
): void {
  audit.write({ event: "lease", outcome: error.code, uid, pid, device, flows, why: error.message });
}

/**
 * It has ended.
 * @param by Who took it back.
 */
export function auditEnded(
  audit: Audit,
  { id: lease, client: { uid, pid }, card: { name: device }, request: { flows } }: LeaseRecord,
  event: LeaseEvent,
  outcome: string,
  why: string,
  by: number | undefined,
): void {
  const what = event === "release" ? "release" : "end";
  audit.write({ event: what, outcome, uid, pid, lease, device, flows, by, why });
}
