// The error of bifurcate, which carries a code of the table.
import { missingFacility } from "./kernel-age.js";
import { verifierRefused } from "./verifier.js";
import { ERRORS, type ErrorCode, type ExitStatus } from "./error-table.js";

export { ERRORS, type ErrorCode, type ExitStatus } from "./error-table.js";

/** What one error says. */
export interface ErrorDetails {
  /** What was tried, e.g. "split eth0 for 'udp dst port 53'". */
  readonly what: string;
  /** Why it failed, e.g. "its driver has 1 queue". */
  readonly why: string;
  /** What to do next; the table's advice when left out. */
  readonly next?: string | undefined;
  /** The error underneath, if there is one. */
  readonly cause?: unknown;
  /** More for scripts, e.g. { position: 12 } of a syntax error; JSON values only. */
  readonly data?: Readonly<Record<string, unknown>> | undefined;
}

/** An error as JSON: one object, the same in every command. */
export interface ErrorJson {
  readonly error: {
    readonly code: ErrorCode;
    readonly what: string;
    readonly why: string;
    readonly next: string;
    readonly data?: Readonly<Record<string, unknown>>;
    readonly cause?: string;
  };
}

/** The one error class of bifurcate. */
export class BifurcateError extends Error {
  override readonly name = "BifurcateError";
  readonly code: ErrorCode;
  readonly what: string;
  readonly why: string;
  readonly next: string;
  readonly data: Readonly<Record<string, unknown>> | undefined;

  constructor(code: ErrorCode, details: ErrorDetails) {
    super(`${details.what}: ${details.why}`, details.cause === undefined ? {} : { cause: details.cause });
    this.code = code;
    this.what = details.what;
    this.why = details.why;
    this.next = details.next ?? ERRORS[code].next;
    this.data = details.data;
  }

  /** 1 failed, 2 usage, 77 this machine cannot. */
  get status(): ExitStatus {
    return ERRORS[this.code].status;
  }

  /** Three lines for a person: what failed and why, what to do next, the code. */
  render(): string {
    return `${this.what}: ${this.why}\n  next: ${this.next}\n  code: ${this.code}`;
  }

  toJSON(): ErrorJson {
    return {
      error: {
        code: this.code,
        what: this.what,
        why: this.why,
        next: this.next,
        ...(this.data === undefined ? {} : { data: this.data }),
        ...(this.cause === undefined ? {} : { cause: messageOf(this.cause) }),
      },
    };
  }

  /** The error that JSON from {@link toJSON} describes, e.g. one that came from another process. */
  static fromJSON(json: ErrorJson): BifurcateError {
    const { code, what, why, next, data, cause } = json.error;
    return new BifurcateError(code, { what, why, next, data, cause });
  }
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Whether a string is a code of the table. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERRORS, code);
}

/** The exit status for anything that was thrown. */
export function exitStatus(thrown: unknown): ExitStatus {
  return thrown instanceof BifurcateError ? thrown.status : 1;
}

/** Codes of errno that mean the same wherever they come from. */
const ERRNO_CODES: Readonly<Record<string, ErrorCode>> = {
  EPERM: "E_NOT_PRIVILEGED",
  EACCES: "E_NOT_PRIVILEGED",
  ENODEV: "E_INTERFACE_GONE",
  ENOMEM: "E_NO_MEMORY",
  ENOBUFS: "E_NO_MEMORY",
};

/**
 * Turns anything that was thrown into a BifurcateError; one stays as it is. A kernel error gets the code of
 * its errno, or `fallback`.
 */
export function wrapError(thrown: unknown, what: string, fallback: ErrorCode = "E_SYSTEM"): BifurcateError {
  if (thrown instanceof BifurcateError) return thrown;
  const missing = missingFacility(thrown);
  if (missing !== null) {
    return new BifurcateError("E_KERNEL_TOO_OLD", {
      what,
      why: `the running kernel lacks ${missing.facility}, which Linux has since ${missing.since}`,
      next: `Use Linux ${missing.since} or newer, with that facility configured.`,
      cause: thrown,
      data: { ...missing },
    });
  }
  const errno = errnoOf(thrown);
  const known = verifierRefused(thrown) ? "E_PROGRAM_REFUSED" : ERRNO_CODES[errno ?? ""];
  const code = errno === null ? "E_INTERNAL" : (known ?? fallback);
  const why = messageOf(thrown);
  // Entering a namespace is the one call whose capability is always the same: setns(2).
  const setns = code === "E_NOT_PRIVILEGED" && why.startsWith("setns");
  const next = setns ? "Another network namespace needs CAP_SYS_ADMIN: run it as root." : undefined;
  return new BifurcateError(code, { what, why, next, cause: thrown });
}

/** The errno name that a Node or kernel error carries ("EBUSY"), or null. */
export function errnoOf(thrown: unknown): string | null {
  if (!(thrown instanceof Error) || !("code" in thrown)) return null;
  return typeof thrown.code === "string" && /^E[A-Z0-9]+$/.test(thrown.code) ? thrown.code : null;
}
