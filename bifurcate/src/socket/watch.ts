// Looks after the connection of a port over a vhost-user socket: says who came and went, and fails the port for good.

import { BifurcateError } from "@bifurcate/control/errors";
import type { NativePort } from "../native.js";
import type { Port } from "../port.js";

/** How often it looks, in milliseconds. Frames do not wait for it: connections come and go without it. */
const LOOK_MS = 250;

/** @returns What looks at once, and what ends it. */
export function watchConnection(
  port: Port,
  native: NativePort,
  warn: (text: string) => void,
): { look(): void; stop(): void } {
  let before: NativePort["connection"];
  const look = (): void => {
    const now = native.connection;
    if (now == null) return;
    const { name } = port;
    const came = now.connections > (before?.connections ?? 0);
    // It may have come and gone since the last look.
    const left = (before?.connected === true || came) && !now.connected;
    if (came && before?.connected === true) warn(`${name}: the other end went and came again`);
    else if (came && now.connected) warn(`${name}: the other end is there`);
    if (left && now.error != null) warn(`${name}: the connection was ended: ${now.error}`);
    else if (left) warn(`${name}: the other end is gone`);
    before = now;
    if (!now.over) return;
    clearInterval(timer);
    const why = now.error ?? "its connection is over, and there will be no other";
    port.fail(new BifurcateError("E_DEVICE_FAILED", { what: `keep ${name}`, why, next: "Open it again." }));
  };
  const timer = setInterval(look, LOOK_MS).unref();
  return { look, stop: () => clearInterval(timer) };
}
