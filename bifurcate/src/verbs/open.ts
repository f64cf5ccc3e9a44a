// Opens queue pairs of an RDMA device, which stays with the kernel: raw packets by flow rules, or datagrams between two ends.

import { randomInt } from "node:crypto";
import { openVerbs, takeQueue, type NativePort as Opened } from "@bifurcate/addon";
import { BifurcateError, errnoOf, messageOf, wrapError } from "@bifurcate/control/errors";
import { rxMetadata } from "@bifurcate/control/steering/metadata";
import { verbsRules } from "@bifurcate/control/steering/verbs-flows";
import type { OpenOptions } from "../open.js";
import { Port } from "../port.js";
import type { VerbsSpec } from "../spec.js";
import { withTapFile } from "../tap-file.js";
import { listen, visit, type Meeter, type Meeting } from "./meeting.js";
import { watchDevice } from "./watch.js";

/** A key with the highest bit is a privileged one (InfiniBand Architecture Specification, section 10.2.5). */
const QKEYS = 2 ** 31;

/**
 * @throws E_NO_RDMA_CORE, E_NO_RDMA_DEVICE, E_QP_REFUSED, E_NOT_PRIVILEGED, E_NO_MEMORY, E_BAD_OPTION; E_NO_FLOW and what
 *   flows throw; of the meeting E_SOCKET_IN_USE, E_SOCKET_MISSING, E_PEER_FAILED.
 */
export async function openVerbsPort(spec: VerbsSpec, { onWarning, tap, flows }: OpenOptions): Promise<Port> {
  const name = `verbs:${spec.name}`;
  const what = `open ${name}`;
  const warn = (text: string): void => onWarning?.(text);
  const { meeting } = spec;
  const native = openNative(spec, what, meeting === null ? rulesOf(what, flows) : noRules(what, flows), tap);
  let ends: Meeting | undefined;
  const port = new Port(
    { native, name, takeQueue },
    {
      path: {
        backend: "verbs",
        queues: Array.from({ length: native.queues }, (_, queue) => queue),
        mode: "zero-copy",
        xdp: null,
        steering: meeting === null ? "flow-rules" : "none",
        obtained: native.obtained,
        metadata: rxMetadata("verbs", []),
        notes: notesOf(spec, native),
      },
      id: null,
      bypasses: meeting === null ? ["the kernel, for what the card's flow rules bring here"] : [],
      confirm: () => undefined,
      look: () => watch.look(),
      close: async (shut) => {
        ends?.stop();
        watch.stop();
        await shut();
      },
    },
  );
  const watch = watchDevice(port, native, warn);
  if (meeting === null) return port;
  const meeter = meeterOf(native, name, warn);
  try {
    ends = await (meeting.listens ? listen : visit)(what, meeting.at, meeter);
  } catch (thrown) {
    await port.close();
    throw thrown;
  }
  return port;
}

function rulesOf(what: string, flows: readonly string[] | undefined): Uint8Array[] {
  if (flows !== undefined) return verbsRules(what, flows);
  const why = "raw packets come by flow rules of the card, and no flow was named";
  const next = "Name flows, or the other end of datagrams with server= or peer=.";
  throw new BifurcateError("E_NO_FLOW", { what, why, next });
}

function noRules(what: string, flows: readonly string[] | undefined): undefined {
  if (flows === undefined) return undefined;
  const why = "datagrams come from the other end alone, and no flow rule brings them";
  throw new BifurcateError("E_BAD_OPTION", {
    what,
    why,
    next: "Leave the flows out.",
    data: { option: "flows" },
  });
}

function openNative(
  spec: VerbsSpec,
  what: string,
  rules: Uint8Array[] | undefined,
  tap: string | undefined,
): Opened {
  const { name: device, port, queues, frames, frameSize, ringSize, busyPoll, gid } = spec;
  try {
    return withTapFile(tap, () =>
      openVerbs({
        ...{ device, port, queues, frames, frameSize, ringSize, busyPoll, pages: "auto" },
        ...(rules === undefined ? { qkey: randomInt(1, QKEYS) } : { rules }),
        ...(gid === null ? {} : { gid }),
        ...(tap === undefined ? {} : { tap }),
      }),
    );
  } catch (thrown) {
    throw refused(thrown, what);
  }
}

function notesOf(spec: VerbsSpec, native: Opened): string[] {
  const { meeting } = spec;
  if (meeting === null) {
    return [
      "raw packets of verbs have not been run on hardware",
      "the card's flow rules are a sieve: they bring at least the flows, and nothing of what they bring reaches the kernel",
    ];
  }
  const { address, port } = meeting.at;
  const at = `${address.includes(":") ? `[${address}]` : address}:${port}`;
  const largest = native.rdma?.largest ?? 0;
  return [
    `${meeting.listens ? "listens" : "connects"} at ${at} to find the other end`,
    `frames of ${largest} bytes at most: a datagram is one packet`,
  ];
}

function meeterOf(native: Opened, name: string, warn: (text: string) => void): Meeter {
  let there = false;
  return {
    address: native.rdma!.address!,
    expect: (other) => native.connectRdma({ ...other, queuePairs: [...other.queuePairs] }),
    begin: (other) => {
      native.beginRdma();
      there = true;
      warn(`${name}: the other end is there: ${other.gid}`);
    },
    leave: (why) => {
      native.disconnectRdma();
      if (there) warn(`${name}: the other end is gone${why === null ? "" : `: ${why}`}`);
      else if (why !== null) warn(`${name}: an end was not accepted: ${why}`);
      there = false;
    },
  };
}

/** Why queue pairs could not be had, in our codes. */
function refused(thrown: unknown, what: string): BifurcateError {
  if (thrown instanceof BifurcateError) return thrown;
  const { call } = thrown as { call?: unknown };
  const error = (
    code:
      | "E_NO_RDMA_CORE"
      | "E_NO_RDMA_DEVICE"
      | "E_QP_REFUSED"
      | "E_BAD_OPTION"
      | "E_NOT_PRIVILEGED"
      | "E_NO_MEMORY",
    next?: string,
  ): BifurcateError => new BifurcateError(code, { what, why: messageOf(thrown), next, cause: thrown });
  if (call === "dlopen" || call === "dlvsym") return error("E_NO_RDMA_CORE");
  const errno = errnoOf(thrown);
  if (call === "ibv_reg_mr" && errno === "ENOMEM") {
    return error(
      "E_NO_MEMORY",
      "Raise RLIMIT_MEMLOCK (`ulimit -l`), give the process CAP_IPC_LOCK, or ask for fewer frames.",
    );
  }
  const kind = call === "ibv_create_qp" || call === "ibv_create_flow";
  switch (errno) {
    case "ENODEV":
    case "ENOSYS":
      return error("E_NO_RDMA_DEVICE");
    case "EPERM":
    case "EACCES":
      return error(
        "E_NOT_PRIVILEGED",
        "Run it as root: raw packets need CAP_NET_RAW, and /dev/infiniband has owners.",
      );
    case "EOPNOTSUPP":
      return error("E_QP_REFUSED");
    case "EINVAL":
      if (kind) return error("E_QP_REFUSED");
      return call === "ibv_query_port" ? error("E_NO_RDMA_DEVICE") : error("E_BAD_OPTION");
    default:
      return wrapError(thrown, what);
  }
}
