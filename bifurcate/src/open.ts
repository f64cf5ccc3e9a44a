// Opens a device by a word.

import { openLoopback, takeQueue } from "@bifurcate/addon";
import { rxMetadata } from "@bifurcate/control";
import { Port } from "./port.js";
import { parseSpec } from "./spec.js";

/**
 * Opens a device that needs no card.
 * @param spec "loopback" or "loopback:queues=2,order=cold,length=1500": memory to memory, for tests and measurements.
 * @throws E_BAD_OPTION, E_NO_MEMORY, E_EXTERNAL_BUFFERS.
 */
export function open(spec: string): Promise<Port> {
  return Promise.resolve().then(() => {
    const native = openLoopback(parseSpec(spec));
    return new Port(
      { native, name: "loopback", takeQueue },
      {
        path: {
          backend: "loopback",
          queues: Array.from({ length: native.queues }, (_, queue) => queue),
          mode: "memory",
          xdp: null,
          steering: "none",
          obtained: native.obtained,
          metadata: rxMetadata("loopback", []),
          notes: [],
        },
        id: null,
        bypasses: [],
        confirm: () => undefined,
        close: (shut) => shut(),
      },
    );
  });
}
