// What a plan needs to know of a flow; steering/rules makes it from the expression.
import type { SocketFacts } from "../kernel.js";

/** One ntuple rule still without its location: where its bytes say "ring" is filled in by `forQueue`. */
export interface NtupleTemplate {
  /** The rule in ethtool's words, e.g. "udp4 dst-port 53". */
  readonly words: string;
  /** A struct ethtool_rx_flow_spec with ring_cookie = queue and the given location. */
  forQueue(queue: number, location: number): Uint8Array;
}

/** A flow, compiled. */
export interface Flow {
  /** The expression as the user wrote it. */
  readonly text: string;
  /** Every frame of the card ("all"). */
  readonly all: boolean;
  /** Its verdict depends on VLAN tags. */
  readonly vlan: boolean;
  /** Rules that together let through all of the flow (and perhaps more), or why there are none. */
  readonly ntuple: { readonly rules: readonly NtupleTemplate[] } | { readonly why: string };
  /** Whether some frame may belong to both. */
  overlaps(other: Flow): boolean;
  /**
   * Whether frames that this socket would receive may belong to the flow; `vlans` are the tags under which VLAN
   * devices on the card receive, beside untagged frames.
   */
  takes(socket: SocketFacts, vlans: readonly number[]): boolean;
}

/** Compiles an expression; errors E_FLOW_SYNTAX, E_FLOW_UNSUPPORTED, E_FLOW_NAME. */
export type CompileFlow = (text: string) => Flow;
