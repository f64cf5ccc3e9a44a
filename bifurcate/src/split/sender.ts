// A port that only sends: where `forward` sends to. It takes nothing from the kernel.

import { openAfPacket, takeQueue } from "@bifurcate/addon";
import { BifurcateError, findLink, nativeKernel, openNetns, rxMetadata, wrapError } from "@bifurcate/control";
import { Port } from "../port.js";
import { JUMBO_FRAMES_A_QUEUE, type AddonNetns } from "./path.js";

/** A socket filter that wants no frame: r0 = 0; exit (linux/bpf.h). */
const NOTHING = Uint8Array.of(0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);
const FRAMES = 4096;

/** Where the interface is. */
export interface SenderOptions {
  /** A network namespace by name or path; the process's own when left out. */
  readonly netns?: string | null | undefined;
  /** Queues, each of which another thread may send by; 1 when left out. */
  readonly queues?: number | undefined;
}

/**
 * Opens an interface for sending alone, by packet sockets: `port.runNative("forward", { to })`.
 * @throws E_NO_SUCH_INTERFACE, E_INTERFACE_DOWN, E_NOT_PRIVILEGED, E_NO_SUCH_NETNS.
 */
export function openSender(ifname: string, options: SenderOptions = {}): Promise<Port> {
  return Promise.resolve().then(() => {
    const what = `open ${ifname} for sending`;
    const kernel = nativeKernel();
    const netns = openNetns(kernel, options.netns ?? null);
    const { queues = 1 } = options;
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
        frames: FRAMES * queues,
        frameSize: 2048,
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
