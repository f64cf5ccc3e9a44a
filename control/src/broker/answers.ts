// What the audit log says of the answer to a request for a lease.
import type { BifurcateError } from "../errors.js";
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
