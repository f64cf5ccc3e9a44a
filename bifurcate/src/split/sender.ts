// A port that only sends: where `forward` sends to. It takes nothing from the kernel.

import { openAfPacket, takeQueue } from "@bifurcate/addon";
import { BifurcateError, wrapError } from "@bifurcate/control/errors";
import { findLink } from "@bifurcate/control/facts/facts";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { rxMetadata } from "@bifurcate/control/steering/metadata";
import { checkValue, either, nothing, readOptions, text, whole, type Kinds } from "../check-options.js";
import { FRAMES_A_QUEUE, FRAME_SIZE, poolFrames } from "../pool.js";
import { Port } from "../port.js";
import { JUMBO_FRAMES_A_QUEUE, type AddonNetns } from "./path.js";

/** A socket filter that wants no frame: r0 = 0; exit (linux/bpf.h). */
const NOTHING = Uint8Array.of(0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);

/** Where the interface is. */
export interface SenderOptions {
  /** A network namespace by name or path; the process's own when left out. */
  readonly netns?: string | null | undefined;
  /** Queues, each of which another thread may send by; 1 when left out. */
  readonly queues?: number | undefined;
}

/** As many as the loopback device has at most. */
const QUEUES_MAX = 64;

const KINDS: Kinds<SenderOptions> = { netns: either(text, nothing), queues: whole(1, QUEUES_MAX) };

/**
 * Opens an interface for sending alone, by packet sockets: `port.runNative("forward", { to })`.
 * @throws E_BAD_OPTION, E_NO_SUCH_INTERFACE, E_INTERFACE_DOWN, E_NOT_PRIVILEGED, E_NO_SUCH_NETNS.
 */
export function openSender(ifname: string, options: SenderOptions = {}): Promise<Port> {
  return Promise.resolve().then(() => {
    checkValue("open an interface for sending", "the interface", ifname, text);
    const what = `open ${ifname} for sending`;
    const { netns: where = null, queues = 1 } = readOptions(what, options, KINDS);
    const kernel = nativeKernel();
    const netns = openNetns(kernel, where);
    try {
      const link = findLink(netns.links(), ifname);
      if (!link.up)
        throw new BifurcateError("E_INTERFACE_DOWN", { what, why: "it is administratively down" });
      const filter = kernel.loadProgram({
        type: "socket-filter",
        name: "bifurcate_none",
        instructions: NOTHING,
        maps: [],
      });
      const device = {
        ifname,
        queues,
        frames: poolFrames(what, FRAMES_A_QUEUE, queues, JUMBO_FRAMES_A_QUEUE * queues),
        frameSize: FRAME_SIZE,
        jumboFrames: JUMBO_FRAMES_A_QUEUE * queues,
        hash: false,
        pages: "auto",
      };
      const native = openAfPacket(netns as unknown as AddonNetns, device, filter as never);
      filter.close();
      return new Port(
        { native, name: ifname, takeQueue },
        {
          path: {
            backend: "af_packet",
            queues: Array.from({ length: queues }, (_, queue) => queue),
            mode: "copy",
            xdp: null,
            steering: "none",
            obtained: native.obtained,
            metadata: rxMetadata("af_packet", []),
            notes: [],
          },
          id: null,
          bypasses: [],
          confirm: () => undefined,
          close: (shut) => shut(),
        },
      );
    } catch (thrown) {
      throw wrapError(thrown, what);
    } finally {
      netns.close();
    }
  });
}
