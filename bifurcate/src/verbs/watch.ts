// Looks after the RDMA device of a port: says what happened to it, and fails the port when it is gone.

import { BifurcateError } from "@bifurcate/control/errors";
import type { NativePort } from "../native.js";
import type { Port } from "../port.js";

/** How often it looks, in milliseconds. Frames do not wait for it. */
const LOOK_MS = 250;

/** @returns What looks at once, and what ends it. */
export function watchDevice(
  port: Port,
  native: NativePort,
  warn: (text: string) => void,
): { look(): void; stop(): void } {
  let before: NativePort["rdma"];
  const look = (): void => {
    const now = native.rdma;
    if (now == null) return;
    const { name } = port;
    const restarts = now.restarts - (before?.restarts ?? 0);
    if (restarts > 0) {
      const times = restarts === 1 ? "" : ` ${restarts} times`;
      warn(`${name}: a queue pair was set up again${times} after an error: ${now.why ?? "of no reason"}`);
    }
    if (now.state === "down" && before?.state !== "down") warn(`${name}: its port is down`);
    if (now.state === "up" && before?.state === "down") warn(`${name}: its port is up again`);
    before = now;
    if (now.state !== "gone") return;
    clearInterval(timer);
    const why = now.why ?? "the device is gone";
    port.fail(new BifurcateError("E_DEVICE_FAILED", { what: `keep ${name}`, why, next: "Open it again." }));
  };
  const timer = setInterval(look, LOOK_MS).unref();
  return { look, stop: () => clearInterval(timer) };
}
