// Looks whether a card taken whole is still there and keeps to its memory, and ends its port when not.

import { BifurcateError } from "@bifurcate/control/errors";
import type { NativePort } from "../native.js";
import type { Port } from "../port.js";

/** How often it looks, in milliseconds: the kernel waits for us before it lets a card go that VFIO has. */
const LOOK_MS = 250;

/** @returns What looks at once, and what ends it. */
export function watchCard(
  port: Port,
  native: Pick<NativePort, "state" | "dmaFault">,
): { look(): void; stop(): void } {
  const end = (code: "E_CARD_GONE" | "E_CARD_ASTRAY", why: string): void => {
    clearInterval(timer);
    port.fail(new BifurcateError(code, { what: `keep ${port.name}`, why }));
  };
  const look = (): void => {
    const fault = native.dmaFault?.();
    if (fault != null) end("E_CARD_ASTRAY", fault);
    else if (native.state() === "gone")
      end("E_CARD_GONE", "it is unplugged or unbound, or somebody reset it");
  };
  const timer = setInterval(look, LOOK_MS).unref();
  return { look, stop: () => clearInterval(timer) };
}
