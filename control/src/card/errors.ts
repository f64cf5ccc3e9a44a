// The addon's refusals about a PCI card as errors with codes.
import { BifurcateError, errnoOf, messageOf, wrapError, type ErrorCode } from "../errors.js";

/** What each errno stands for where a card is concerned. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  ENODEV: "E_NO_SUCH_CARD",
  EBUSY: "E_CARD_BUSY",
  ENXIO: "E_CARD_NOT_TAKEN",
  ENOENT: "E_CARD_NOT_TAKEN",
  EOPNOTSUPP: "E_CARD_UNKNOWN",
  EINVAL: "E_BAD_OPTION",
  ETIMEDOUT: "E_CARD_FAILED",
  EIO: "E_CARD_FAILED",
};

/** A refusal of the addon as an error with a code. */
export function cardError(thrown: unknown, what: string): BifurcateError {
  if (thrown instanceof BifurcateError) return thrown;
  const errno = errnoOf(thrown);
  const why = messageOf(thrown);
  if (errno === "EPERM" && why.includes("shared with"))
    return new BifurcateError("E_CARD_GROUP", { what, why, cause: thrown });
  // Error::no_interrupt of linux/src/error.rs: the card is known, and carries frames without them.
  if (errno === "EOPNOTSUPP" && why.startsWith("interrupts "))
    return new BifurcateError("E_NO_INTERRUPT", {
      what,
      why: `interrupts=yes is refused: ${why}`,
      cause: thrown,
    });
  const code = errno === null ? undefined : CODES[errno];
  return code === undefined
    ? wrapError(thrown, what)
    : new BifurcateError(code, { what, why, cause: thrown });
}
