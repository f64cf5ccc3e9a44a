// Opens an end of a vhost-user socket: the device's, or the driver's.

import path from "node:path";
import { openVhostUser, openVirtioUser, takeQueue } from "@bifurcate/addon";
import { BifurcateError, errnoOf, messageOf, wrapError } from "@bifurcate/control/errors";
import { rxMetadata } from "@bifurcate/control/steering/metadata";
import type { NativePort } from "../native.js";
import type { OpenOptions } from "../open.js";
import { Port } from "../port.js";
import type { SocketSpec } from "../spec.js";
import { whenTapFile } from "../tap-file.js";
import { watchConnection } from "./watch.js";

/**
 * The other end is waited for away from this thread, 20 s at most.
 * @throws E_SOCKET_IN_USE, E_SOCKET_MISSING, E_PEER_LACKS, E_PEER_FAILED, E_BAD_OPTION, E_NO_MEMORY, E_OUTPUT.
 */
export async function openSocket(spec: SocketSpec, { onWarning, tap }: OpenOptions): Promise<Port> {
  const { device, path: at, layout } = spec;
  const name = `${device}:${at}`;
  const make = device === "vhost-user" ? openVhostUser : openVirtioUser;
  let native: NativePort;
  try {
    const wanted = {
      path: at,
      server: spec.server,
      queues: spec.queues,
      frames: spec.frames,
      frameSize: spec.frameSize,
      jumboFrames: spec.jumboFrames,
      pages: "auto",
      ringSize: spec.ringSize,
      busyPoll: spec.busyPoll,
      ...(layout === null ? {} : { layout }),
      ...(tap === undefined ? {} : { tap }),
    };
    native = await whenTapFile(tap, () => make(wanted));
  } catch (thrown) {
    throw refused(thrown, spec, `open ${name}`);
  }
  const port = new Port(
    { native, name, takeQueue },
    {
      path: {
        backend: device,
        queues: Array.from({ length: native.queues }, (_, queue) => queue),
        mode: native.obtained.zeroCopy ? "zero-copy" : "copy",
        xdp: null,
        steering: "none",
        obtained: native.obtained,
        metadata: rxMetadata(device, []),
        notes: [spec.server ? `listens at ${at}` : `connects to ${at}`],
      },
      id: null,
      bypasses: [],
      confirm: () => undefined,
      look: () => watch.look(),
      close: async (shut) => {
        watch.stop();
        await shut();
      },
    },
  );
  const watch = watchConnection(port, native, (text) => onWarning?.(text));
  return port;
}

/** Why an end could not be opened, in our codes. */
function refused(thrown: unknown, spec: SocketSpec, what: string): BifurcateError {
  if (thrown instanceof BifurcateError) return thrown;
  let why = messageOf(thrown);
  const error = (
    code: "E_SOCKET_IN_USE" | "E_SOCKET_MISSING" | "E_PEER_LACKS" | "E_PEER_FAILED" | "E_BAD_OPTION",
    next?: string,
  ): BifurcateError => new BifurcateError(code, { what, why, next, cause: thrown });
  switch (errnoOf(thrown)) {
    case "EADDRINUSE":
      return error("E_SOCKET_IN_USE");
    case "ENOENT":
    case "ENOTDIR":
      if (spec.server) {
        why = `there is no folder ${path.dirname(spec.path)} to make the socket in`;
        return error("E_BAD_OPTION", "Make the folder of the socket first, or name another one.");
      }
      return error("E_SOCKET_MISSING");
    case "ECONNREFUSED":
    case "ENOTSOCK":
      return error("E_SOCKET_MISSING");
    case "EOPNOTSUPP":
      return error("E_PEER_LACKS");
    case "ETIMEDOUT":
    case "ECONNRESET":
    case "EPIPE":
    case "EPROTO":
      return error("E_PEER_FAILED");
    case "EINVAL":
      return error("E_BAD_OPTION");
    default:
      return wrapError(thrown, what);
  }
}
