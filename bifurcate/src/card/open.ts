// Opens a card taken whole: our own driver in place of the kernel's.

import { openPci, takeQueue, type NativePort } from "@bifurcate/addon";
import {
  BifurcateError,
  errnoOf,
  messageOf,
  rxMetadata,
  wrapError,
  type ErrorCode,
} from "@bifurcate/control";
import { Port } from "../port.js";
import { parseCardSpec, type CardSpec, type Mechanism } from "./spec.js";

/** What each refusal of the addon stands for. */
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
  const errno = errnoOf(thrown);
  const why = messageOf(thrown);
  if (errno === "EPERM" && why.includes("shared with"))
    return new BifurcateError("E_CARD_GROUP", { what, why, cause: thrown });
  const code = errno === null ? undefined : CODES[errno];
  return code === undefined
    ? wrapError(thrown, what)
    : new BifurcateError(code, { what, why, cause: thrown });
}

/** Whether the IOMMU holds the card to the memory that is mapped for it. */
export function protectsMemory(via: Mechanism): boolean {
  return via === "vfio" || via === "iommufd";
}

/**
 * Opens a card that is bound to its mechanism's driver (docs/direct-access.md shows how).
 * @throws E_BAD_OPTION, E_NO_SUCH_CARD, E_CARD_NOT_TAKEN, E_CARD_BUSY, E_CARD_GROUP, E_CARD_UNKNOWN, E_CARD_FAILED,
 *   E_NO_MEMORY, E_NOT_PRIVILEGED.
 */
export function openCard(word: string): Port {
  const spec = parseCardSpec(word);
  let native: NativePort;
  try {
    native = openPci({ ...spec, pages: "auto" });
  } catch (thrown) {
    throw cardError(thrown, `open ${word}`);
  }
  return cardPort(native, spec);
}

function cardPort(native: NativePort, spec: CardSpec): Port {
  const notes = protectsMemory(spec.via)
    ? []
    : [`${spec.via} has no memory protection: the card can reach all memory, and so can whoever drives it`];
  return new Port(
    { native, name: spec.address, takeQueue },
    {
      path: {
        backend: "pci",
        queues: Array.from({ length: native.queues }, (_, queue) => queue),
        mode: "zero-copy",
        xdp: null,
        steering: "none",
        obtained: native.obtained,
        metadata: rxMetadata("pci", []),
        notes,
      },
      id: null,
      bypasses: ["the kernel: the card is taken whole"],
      confirm: () => undefined,
      close: (shut) => shut(),
    },
  );
}
