// Opens a card taken whole: our own driver in place of the kernel's.

import { openPci, takeQueue, type NativePort } from "@bifurcate/addon";
import { rxMetadata } from "@bifurcate/control";
import { cardError } from "@bifurcate/control/card/errors";
import { checkProtection, protectsMemory } from "@bifurcate/control/card/mechanism";
import { Port } from "../port.js";
import { withTapFile } from "../tap-file.js";
import { parseCardSpec, type CardSpec } from "./spec.js";

/**
 * Opens a card that is bound to its mechanism's driver (`bifurcate take`).
 * @param tap A pcapng file to write every received and sent frame to.
 * @throws E_BAD_OPTION, E_NO_MEMORY_PROTECTION, E_NO_SUCH_CARD, E_CARD_NOT_TAKEN, E_CARD_BUSY, E_CARD_GROUP, E_CARD_UNKNOWN, E_CARD_FAILED,
 *   E_NO_MEMORY, E_NOT_PRIVILEGED.
 */
export function openCard(word: string, tap?: string): Port {
  const spec = parseCardSpec(word);
  checkProtection(`open ${word}`, spec.via, spec.noMemoryProtection, "noMemoryProtection=yes");
  let native: NativePort;
  try {
    native = withTapFile(tap, () =>
      openPci({ ...spec, pages: "auto", ...(tap === undefined ? {} : { tap }) }),
    );
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
