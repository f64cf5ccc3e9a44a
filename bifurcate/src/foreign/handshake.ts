// What DPDK's AF_XDP driver says to a device plugin with `use_cni`, and what it is answered: it asks for the map that its
// socket belongs into (DPDK 24.11, drivers/net/af_xdp/rte_eth_af_xdp.c, uds_get_xskmap_fd).

/** Longest request, bytes: DPDK's buffer has 64, the plugin's own protocol knows none longer than this. */
export const LONGEST = 256;
/** The version of the protocol, which DPDK reads and does not compare. */
const VERSION = "0.1";

/** What is to be sent. */
export interface Reply {
  readonly text: string;
  /** The map's descriptor goes with it. */
  readonly map: boolean;
  /** The connection is over then. */
  readonly end: boolean;
}

const say = (text: string, more: Partial<Reply> = {}): Reply => ({ text, map: false, end: false, ...more });

/** One connection: which request may come, and what it is answered. */
export class Handshake {
  private connected = false;

  /** @param port The interface whose map is given. */
  constructor(private readonly port: string) {}

  /** The answer to a request. */
  answer(request: string): Reply {
    const [word = "", value = ""] = request.split(",", 2);
    if (word === "/connect") {
      // A pod's name: whoever says it may have made it up. Who asks, the kernel has said.
      this.connected = true;
      return say("/host_ok");
    }
    if (word === "/fin") return say("/fin_ack", { end: true });
    if (!this.connected) return say("/host_nak", { end: true });
    if (word === "/version") return say(VERSION);
    if (word === "/xsk_map_fd") return value === this.port ? say("/fd_ack", { map: true }) : say("/fd_nak");
    // The plugin sets busy polling for its clients; ours wants no right for a client that makes its own socket.
    return say("/nak");
  }
}
