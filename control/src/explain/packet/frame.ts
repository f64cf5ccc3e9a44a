// From a packet to the bytes of its frame, checksums included, and back.
import { addressOf, macOctets, octetsOf, type Packet } from "./packet.js";

const NUMBERS = { udp: 17, tcp: 6, sctp: 132, icmp: 1, other: 253 } as const;
/** Bytes of the headers behind IP; of "other" nothing is known. */
const TRANSPORT = { udp: 8, tcp: 20, sctp: 12, icmp: 8, other: 0, arp: 28 } as const;
const ICMP6 = 58;
const TAGS = [0x8100, 0x88a8, 0x9100];

/** Bytes of a packet's headers. */
export function headerLength(packet: Pick<Packet, "protocol" | "version" | "vlan">): number {
  const network = packet.version === 4 ? 20 : packet.version === 6 ? 40 : 0;
  return 14 + (packet.vlan === null ? 0 : 4) + network + TRANSPORT[packet.protocol];
}

/**
 * The frame of a packet as it would arrive on a card.
 * @param card The card's Ethernet address, where the packet names no other.
 */
export function frameOf(packet: Packet, card: string): Uint8Array {
  const frame = new Uint8Array(Math.max(packet.length, headerLength(packet)));
  const view = new DataView(frame.buffer);
  frame.set(macOctets(packet.destinationMac ?? card), 0);
  frame.set(macOctets(packet.sourceMac ?? "02:00:5e:00:53:01"), 6);
  let at = 12;
  if (packet.vlan !== null) {
    view.setUint16(at, 0x8100);
    view.setUint16(at + 2, packet.vlan);
    at += 4;
  }
  view.setUint16(at, packet.protocol === "arp" ? 0x0806 : packet.version === 6 ? 0x86dd : 0x0800);
  at += 2;
  const [source, destination] = [octetsOf(packet.source) ?? [], octetsOf(packet.destination) ?? []];
  if (packet.protocol === "arp") {
    // RFC 826: Ethernet, IPv4, lengths 6 and 4, a request.
    frame.set(
      [0, 1, 8, 0, 6, 4, 0, 1, ...frame.subarray(6, 12), ...source, 0, 0, 0, 0, 0, 0, ...destination],
      at,
    );
    return frame;
  }
  const transport = at + (packet.version === 6 ? 40 : 20);
  const payload = frame.length - transport;
  const number = packet.protocol === "icmp" && packet.version === 6 ? ICMP6 : NUMBERS[packet.protocol];
  if (packet.version === 6) {
    view.setUint32(at, 0x6000_0000);
    view.setUint16(at + 4, payload);
    frame.set([number, 64, ...source, ...destination], at + 6);
  } else {
    frame.set([0x45, 0], at);
    view.setUint16(at + 2, 20 + payload);
    view.setUint16(at + 6, 0x4000);
    frame.set([64, number, 0, 0, ...source, ...destination], at + 8);
    view.setUint16(at + 10, checksum(frame.subarray(at, at + 20)));
  }
  fill(packet, view, transport, payload);
  const pseudo = Uint8Array.of(
    ...source,
    ...destination,
    0,
    0,
    payload >> 8,
    payload & 0xff,
    0,
    0,
    0,
    number,
  );
  const place = { udp: 6, tcp: 16, icmp: 2, sctp: -1, other: -1 }[packet.protocol];
  if (place >= 0) {
    const bytes = frame.subarray(transport);
    const own = packet.protocol === "icmp" && packet.version === 4;
    const sum = checksum(own ? bytes : Uint8Array.of(...pseudo, ...bytes));
    // UDP's checksum of nothing is written as its complement (RFC 768).
    view.setUint16(transport + place, sum === 0 && packet.protocol === "udp" ? 0xffff : sum);
  }
  return frame;
}

function fill(packet: Packet, view: DataView, at: number, payload: number): void {
  if (packet.protocol === "other") return;
  if (packet.protocol === "icmp") {
    view.setUint8(at, packet.version === 6 ? 128 : 8); // an echo request
    return;
  }
  view.setUint16(at, packet.sourcePort ?? 0);
  view.setUint16(at + 2, packet.destinationPort ?? 0);
  if (packet.protocol === "udp") view.setUint16(at + 4, payload);
  // No options, SYN, a window: RFC 9293.
  if (packet.protocol === "tcp") view.setUint32(at + 12, 0x5002_ffff);
}

/** The Internet checksum (RFC 1071). */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let n = 0; n < bytes.length; n += 2) sum += (bytes[n]! << 8) | (bytes[n + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** What a frame carries, as far as its headers can be read; a frame cut short is read as far as it goes. */
export function packetOf(frame: Uint8Array): Packet {
  const mac = (at: number): string =>
    [...frame.subarray(at, at + 6)].map((each) => each.toString(16).padStart(2, "0")).join(":");
  const word = (at: number): number => ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
  const tagged = TAGS.includes(word(12)) && frame.length >= 18;
  const type = word(tagged ? 16 : 12);
  const network = tagged ? 18 : 14;
  const bytes = (at: number, count: number): number[] => [...frame.subarray(at, at + count)];
  const base = {
    sourcePort: null,
    destinationPort: null,
    vlan: tagged ? word(14) & 0xfff : null,
    sourceMac: mac(6),
    destinationMac: mac(0),
    length: frame.length,
  };
  const whole = (headers: number): boolean => frame.length >= network + headers;
  if (type === 0x0806 && whole(28)) {
    const [source, destination] = [addressOf(bytes(network + 14, 4)), addressOf(bytes(network + 24, 4))];
    return {
      ...base,
      text: `arp ${source} > ${destination}`,
      protocol: "arp",
      version: null,
      source,
      destination,
    };
  }
  const version = type === 0x0800 && whole(20) ? 4 : type === 0x86dd && whole(40) ? 6 : null;
  if (version === null) {
    const text = `ethertype 0x${type.toString(16).padStart(4, "0")} ${base.sourceMac} > ${base.destinationMac}`;
    return { ...base, text, protocol: "other", version: null, source: "", destination: "" };
  }
  const number = frame[network + (version === 4 ? 9 : 6)]!;
  const size = version === 4 ? 4 : 16;
  const addresses = network + (version === 4 ? 12 : 8);
  const source = addressOf(bytes(addresses, size));
  const destination = addressOf(bytes(addresses + size, size));
  const transport = network + (version === 4 ? 4 * (frame[network]! & 0xf) : 40);
  const fragment = version === 4 && (word(network + 6) & 0x1fff) !== 0;
  const protocol = named(number);
  const ports = ["udp", "tcp", "sctp"].includes(protocol) && !fragment && frame.length >= transport + 4;
  const sourcePort = ports ? word(transport) : null;
  const destinationPort = ports ? word(transport + 2) : null;
  const end = (address: string, port: number | null): string =>
    port === null ? address : `${version === 6 ? `[${address}]` : address}:${port}`;
  const said = protocol === "other" ? `ip protocol ${number}` : protocol;
  const text = `${said} ${end(source, sourcePort)} > ${end(destination, destinationPort)}`;
  return { ...base, text, protocol, version, source, destination, sourcePort, destinationPort };
}

function named(number: number): Packet["protocol"] {
  if (number === ICMP6) return "icmp";
  const [name] = Object.entries(NUMBERS).find(([, each]) => each === number && each !== NUMBERS.other) ?? [];
  return (name as keyof typeof NUMBERS | undefined) ?? "other";
}
