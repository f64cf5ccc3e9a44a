// The hash by which cards spread flows over queues, and what of a packet goes into it.
import { octetsOf, type Packet } from "./packet/packet.js";
import type { HashedFlow } from "../observe/kernel.js";

/** Bits of what goes into the hash (RXH_*, include/uapi/linux/ethtool.h). */
export const RXH = {
  sourceAddress: 1 << 4,
  destinationAddress: 1 << 5,
  sourcePort: 1 << 6,
  destinationPort: 1 << 7,
} as const;

/**
 * The Toeplitz hash (Microsoft, "Verifying the RSS Hash Calculation"): for each set bit of the input, the 32 bits of the key that
 * begin at that place, all xored. A key that is too short counts as continued by zeros.
 */
export function toeplitz(key: Uint8Array, input: Uint8Array): number {
  let hash = 0;
  // The 32 bits of the key at the place of the input's current bit, and how far they have been read.
  let window = 0;
  for (let at = 0; at < 4; at++) window = (window << 8) | (key[at] ?? 0);
  for (let at = 0; at < input.length; at++) {
    for (let bit = 7; bit >= 0; bit--) {
      if (((input[at]! >> bit) & 1) === 1) hash ^= window;
      window = (window << 1) | (((key[at + 4] ?? 0) >> bit) & 1);
    }
  }
  return hash >>> 0;
}

/** The kind of flow that the card takes a packet for; null for what has no hash: no IP. */
export function flowOf(packet: Packet): HashedFlow | null {
  if (packet.version === null) return null;
  const { protocol, version } = packet;
  const ports = packet.sourcePort !== null;
  if (ports && (protocol === "tcp" || protocol === "udp" || protocol === "sctp"))
    return `${protocol}${version}`;
  return `ip${version}`;
}

/** What goes into the hash: addresses, then ports, those left out that `fields` does not have. */
export function hashInput(packet: Packet, fields: number): Uint8Array {
  const port = (number: number | null): number[] => (number === null ? [] : [number >> 8, number & 0xff]);
  const parts: [number, readonly number[]][] = [
    [RXH.sourceAddress, octetsOf(packet.source) ?? []],
    [RXH.destinationAddress, octetsOf(packet.destination) ?? []],
    [RXH.sourcePort, port(packet.sourcePort)],
    [RXH.destinationPort, port(packet.destinationPort)],
  ];
  return Uint8Array.from(parts.flatMap(([bit, octets]) => ((fields & bit) === 0 ? [] : octets)));
}

/** What drivers hash where they do not tell: both addresses, of TCP the ports too. */
export function usualFields(flow: HashedFlow): number {
  const addresses = RXH.sourceAddress | RXH.destinationAddress;
  return flow.startsWith("tcp") ? addresses | RXH.sourcePort | RXH.destinationPort : addresses;
}
