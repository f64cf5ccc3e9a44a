// A way that the kernel refused at run time: the plan steps down from it and says why.

import { errnoOf, wrapError } from "@bifurcate/control/errors";
import type { Refusal } from "@bifurcate/control/steering/plan";
import { verifierRefused } from "@bifurcate/control/verifier";

/** Thrown by an opening hook when another way may do. */
export class Refused extends Error {
  /** @param refusal The rung of the ladder, and the kernel's answer. */
  constructor(
    readonly refusal: Refusal,
    cause: unknown,
  ) {
    super(refusal.why, { cause });
    this.name = "Refused";
  }
}

/** Answers of a driver or kernel that does not know or does not want the way itself; others are real failures. */
const REFUSALS = new Set([
  "EOPNOTSUPP",
  "ENOTSUP",
  "EAFNOSUPPORT",
  "EINVAL",
  "ERANGE",
  "E2BIG",
  "ENOSYS",
  "EPROTONOSUPPORT",
]);

/** Runs a call of one way; what refuses the way itself becomes a Refused. */
export function asRefusal<T>(way: Pick<Refusal, "backend" | "mode">, call: () => T): T {
  try {
    return call();
  } catch (thrown) {
    const errno = errnoOf(thrown);
    if (errno === null || !(REFUSALS.has(errno) || verifierRefused(thrown))) throw thrown;
    const { code, why } = wrapError(thrown, "open the sockets");
    throw new Refused({ ...way, why, code }, thrown);
  }
}
