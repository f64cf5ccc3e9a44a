// An example for facts: a frame that has them, and the same in words.
import { formatIpv4, formatIpv6, formatMac } from "./addresses.js";
import { splitPosition, type Facts } from "./facts.js";
import { ETHER_PROTOCOLS, IP_PROTOCOLS } from "./words.js";

/** A frame that has the facts, as far as they are about fields. Its bytes are 0 where nothing is known. */
export function exampleFrame(facts: Facts): Uint8Array {
  const frame = new Uint8Array(frameLength(facts));
  const headerLength = (header: number): number => 4 * ((frame[header] ?? 0) & 0xf);
  const place = (at: number): number => {
    const split = splitPosition(at);
    return split === null ? at : split.offset + headerLength(split.header);
  };
  const plain = [...facts.bytes].filter(([at]) => splitPosition(at) === null);
  for (const [at, { value }] of plain) frame[at] = value;
  for (const at of [...facts.bytes.keys(), ...[...facts.ranges.values()].map(({ field }) => field.at)]) {
    const split = splitPosition(at);
    if (split !== null && headerLength(split.header) === 0) frame[split.header] = 0x45;
  }
  if (plain.length > 0 && facts.value(12, 2) === ETHER_PROTOCOLS["ip"] && frame[14] === 0) frame[14] = 0x45;
  for (const [at, { value }] of facts.bytes) {
    if (splitPosition(at) !== null && place(at) < frame.length) frame[place(at)] = value;
  }
  for (const { field, not } of facts.ranges.values()) {
    const { at, size } = field;
    if (at < 0) continue;
    const { min, max } = facts.range(at, size);
    const { mask, value } = facts.bits(at, size);
    const fits = (candidate: number): boolean =>
      (candidate & mask) >>> 0 === value && not.every((bits) => (candidate & bits.mask) >>> 0 !== bits.value);
    let chosen = min;
    while (chosen < max && chosen < min + 1024 && !fits(chosen)) chosen++;
    for (let index = 0; index < size; index++) {
      const target = place(at + index);
      if (target < frame.length) frame[target] = (chosen >>> (8 * (size - 1 - index))) & 0xff;
    }
  }
  return frame;
}

function frameLength(facts: Facts): number {
  const { min, max } = facts.ranges.get("-1:4") ?? { min: 0, max: 0xffffffff };
  const farthest = Math.max(
    0,
    ...[...facts.bytes.keys()].map((at) => (splitPosition(at) === null ? at + 1 : 0)),
  );
  return Math.max(0, Math.min(Math.max(128, farthest, min), max, 65535));
}

/** The facts as a person would say them, e.g. "IPv4, UDP, to port 53". */
export function describeFacts(facts: Facts): string {
  const words: string[] = [];
  const mac = (at: number): string | null => {
    const bytes = [0, 1, 2, 3, 4, 5].map((index) => facts.value(at + index, 1));
    return bytes.every((byte) => byte !== null) ? formatMac(bytes) : null;
  };
  const [to, from] = [mac(0), mac(6)];
  if (from !== null) words.push(`from ${from}`);
  if (to !== null) words.push(`to ${to}`);
  let type = 12;
  while ([0x8100, 0x88a8, 0x9100].includes(facts.value(type, 2) ?? 0)) {
    const { mask, value } = facts.bits(type + 2, 2);
    words.push((mask & 0xfff) === 0xfff ? `VLAN ${value & 0xfff}` : "a VLAN tag");
    type += 4;
  }
  const protocol = facts.value(type, 2);
  const network = type + 2;
  if (protocol === ETHER_PROTOCOLS["ip"]) words.push(...describeIp(facts, network));
  else if (protocol === ETHER_PROTOCOLS["ip6"]) words.push(...describeIp6(facts, network));
  else if (protocol !== null) words.push(etherName(protocol));
  return words.length === 0 ? "any frame" : words.join(", ");
}

function etherName(protocol: number): string {
  const known = Object.entries(ETHER_PROTOCOLS).find(([, number]) => number === protocol)?.[0];
  return known === undefined ? `EtherType 0x${protocol.toString(16).padStart(4, "0")}` : known.toUpperCase();
}

function describeIp(facts: Facts, network: number): string[] {
  const words = ["IPv4", ...describeProtocol(facts.value(network + 9, 1))];
  for (const [at, word] of [
    [network + 12, "from"],
    [network + 16, "to"],
  ] as const) {
    const address = facts.value(at, 4);
    if (address !== null) words.push(`${word} ${formatIpv4(address)}`);
  }
  const ports = 0x100000 * (network + 1) + network;
  return [...words, ...describePorts(facts, ports)];
}

function describeIp6(facts: Facts, network: number): string[] {
  const words = ["IPv6", ...describeProtocol(facts.value(network + 6, 1))];
  for (const [at, word] of [
    [network + 8, "from"],
    [network + 24, "to"],
  ] as const) {
    const address = [0, 4, 8, 12].map((offset) => facts.value(at + offset, 4));
    if (address.every((part) => part !== null)) words.push(`${word} ${formatIpv6(address)}`);
  }
  return [...words, ...describePorts(facts, network + 40)];
}

function describeProtocol(number: number | null): string[] {
  if (number === null) return [];
  const known = Object.entries(IP_PROTOCOLS).find(([, value]) => value === number)?.[0];
  return [known === undefined ? `protocol ${number}` : known.toUpperCase()];
}

function describePorts(facts: Facts, at: number): string[] {
  const one = (position: number, word: string): string[] => {
    const { min, max } = facts.range(position, 2);
    if (min === 0 && max === 65535) return [];
    return [min === max ? `${word} port ${min}` : `${word} ports ${min} to ${max}`];
  };
  return [...one(at, "from"), ...one(at + 2, "to")];
}
