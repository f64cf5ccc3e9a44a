// A packet to explain: its addresses and ports, and the frame that carries it.

/** What is known of a packet. */
export interface Packet {
  /** As the user wrote it, or as a capture file's packet is told. */
  readonly text: string;
  readonly protocol: "udp" | "tcp" | "sctp" | "icmp" | "arp" | "other";
  /** null for what is no IP packet. */
  readonly version: 4 | 6 | null;
  /** IP addresses (of ARP: sender and target); "" for what has none. */
  readonly source: string;
  readonly destination: string;
  /** null where the protocol has no ports, or a fragment does not show them. */
  readonly sourcePort: number | null;
  readonly destinationPort: number | null;
  readonly vlan: number | null;
  /** Ethernet addresses; null: as if the sender had asked for the card's own. */
  readonly sourceMac: string | null;
  readonly destinationMac: string | null;
  /** Bytes of the frame, without its check sequence. */
  readonly length: number;
}

/** A packet and its frame. */
export interface Example {
  readonly packet: Packet;
  readonly frame: Uint8Array;
}

/** The octets of an address; null for what is none. */
export function octetsOf(address: string): number[] | null {
  const four = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(address);
  if (four !== null) {
    const octets = four.slice(1).map(Number);
    return octets.every((octet) => octet <= 255) ? octets : null;
  }
  if (!/^[0-9a-f:.]+$/i.test(address) || !address.includes(":")) return null;
  return sixteen(address);
}

function sixteen(address: string): number[] | null {
  const halves = address.split("::");
  if (halves.length > 2) return null;
  const parts = halves.map((half) => (half === "" ? [] : half.split(":").map(group)));
  if (parts.some((half) => half.some((each) => each === null))) return null;
  const [head = [], tail = []] = parts as number[][][];
  const [front, back] = [head.flat(), tail.flat()];
  const missing = 16 - front.length - back.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return null;
  return [...front, ...Array.from({ length: missing }, () => 0), ...back];
}

/** A group of an IPv6 address, which may end in an IPv4 one. */
function group(text: string): number[] | null {
  if (text.includes(".")) return octetsOf(text);
  if (!/^[0-9a-f]{1,4}$/i.test(text)) return null;
  const value = Number.parseInt(text, 16);
  return [value >> 8, value & 0xff];
}

/** An address as people write it: IPv6 with its longest run of zeros left out (RFC 5952). */
export function addressOf(octets: readonly number[]): string {
  if (octets.length === 4) return octets.join(".");
  const groups = Array.from({ length: 8 }, (_, n) => (octets[2 * n]! << 8) | octets[2 * n + 1]!);
  const text = groups.map((each) => each.toString(16)).join(":");
  const runs = [...text.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].sort((a, b) => b[0].length - a[0].length);
  const [longest] = runs;
  if (longest === undefined) return text;
  const before = text.slice(0, longest.index);
  const after = text.slice(longest.index + longest[0].length);
  return `${before}::${after.replace(/^:/, "")}`;
}

/** Six octets of "02:00:00:00:00:01". */
export function macOctets(mac: string): number[] {
  return mac.split(":").map((each) => Number.parseInt(each, 16));
}
