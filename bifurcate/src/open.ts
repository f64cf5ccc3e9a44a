// Opens a device by a word.

import { openLoopback, takeQueue } from "@bifurcate/addon";
import { BifurcateError } from "@bifurcate/control/errors";
import { rxMetadata } from "@bifurcate/control/steering/metadata";
import { openCard } from "./card/open.js";
import { isCardSpec } from "./card/spec.js";
import { call, checkValue, either, flag, list, readOptions, text, type Kinds } from "./check-options.js";
import type { NativePort } from "./native.js";
import { Port, type PortPath } from "./port.js";
import { openSocket } from "./socket/open.js";
import { parseSpec } from "./spec.js";
import { openVerbsPort } from "./verbs/open.js";

/** How to open a device by a word. */
export interface OpenOptions {
  /**
   * Told what should not be overlooked while the port is open: the other end of a socket came, went, or did what it
   * may not.
   */
  readonly onWarning?: ((text: string) => void) | undefined;
  /** A pcapng file to write every received and sent frame to; not of loopback. */
  readonly tap?: string | undefined;
  /**
   * pcap-filter(7) expressions. Of a card taken whole: handlers see frames of any of them, and everything else is
   * passed; all frames when left out. Of verbs without `server` or `peer`: what the card's rules bring here.
   */
  readonly flows?: readonly string[] | undefined;
  /**
   * Of a card taken whole: keeps the kernel's stack reachable on it, through a TAP with the card's address. true: with
   * the name, addresses and routes that the card's interface had when it was taken; or a name. Frames with the verdict
   * pass arrive there, and what the kernel sends there leaves by the card.
   */
  readonly exception?: boolean | string | undefined;
}

const KINDS: Kinds<OpenOptions> = {
  onWarning: call,
  tap: text,
  flows: list(text),
  exception: either(flag, text),
};

/**
 * Opens a device by a word.
 * @param spec "pci:0000:01:10.0" or "pci:0000:01:10.0,via=vfio,queues=2": a card taken whole, by our own driver.
 *   "loopback" or "loopback:queues=2,order=cold,length=1500": memory to memory, for tests and measurements.
 *   "vhost-user:/run/vm0.sock,server,queues=2": the device's end of a vhost-user socket, which a guest or another
 *   driver attaches to. "virtio-user:/run/device.sock": the driver's end. docs/vhost-user.md has all keys.
 *   "verbs:mlx5_0": queue pairs of an RDMA card, with `flows`; "verbs:rxe0,server=192.0.2.1:7471": datagrams between two
 *   ends. docs/verbs.md has all keys.
 * @throws E_BAD_OPTION, E_NO_MEMORY, E_EXTERNAL_BUFFERS; of verbs what openVerbsPort throws; of a socket E_SOCKET_IN_USE, E_SOCKET_MISSING, E_PEER_LACKS,
 *   E_PEER_FAILED, E_NOT_PRIVILEGED; of a card what openCard throws.
 */
export function open(spec: string, options: OpenOptions = {}): Promise<Port> {
  return Promise.resolve().then(() => {
    checkValue("open a device", "the device", spec, text);
    const checked = readOptions(`open ${spec}`, options, KINDS);
    const { tap } = checked;
    if (isCardSpec(spec)) return openCard(spec, checked);
    if (checked.exception !== undefined) {
      const why = "exception is for a card taken whole";
      throw new BifurcateError("E_BAD_OPTION", { what: `open ${spec}`, why, data: { option: "exception" } });
    }
    const wanted = parseSpec(spec);
    if (wanted.device === "verbs") return openVerbsPort(wanted, checked);
    noFlows(spec, checked);
    if (wanted.device !== "loopback") return openSocket(wanted, checked);
    if (tap !== undefined) {
      const why = "tap has nothing to see: the loopback device makes its frames of nothing";
      const next = "Leave tap out.";
      throw new BifurcateError("E_BAD_OPTION", { what: `open ${spec}`, why, next, data: { option: "tap" } });
    }
    const native = openLoopback(wanted);
    return portOf("loopback", native, {
      backend: "loopback",
      queues: Array.from({ length: native.queues }, (_, queue) => queue),
      mode: "memory",
      xdp: null,
      steering: "none",
      obtained: native.obtained,
      metadata: rxMetadata("loopback", []),
      notes: [],
    });
  });
}

function noFlows(spec: string, { flows }: OpenOptions): void {
  if (flows === undefined) return;
  const why = "flows are of cards and verbs: what comes here is not chosen by flows";
  throw new BifurcateError("E_BAD_OPTION", {
    what: `open ${spec}`,
    why,
    next: "Leave flows out.",
    data: { option: "flows" },
  });
}

/** A port with nothing behind it that has to be restored. */
function portOf(name: string, native: NativePort, path: PortPath): Port {
  return new Port(
    { native, name, takeQueue },
    { path, id: null, bypasses: [], confirm: () => undefined, close: (shut) => shut() },
  );
}
