// A DNS server for one small zone, that answers in place: the query's own frame becomes the answer.
//
//   bifurcate split eth0 --flow 'udp dst port 53' --do run=examples/dns.ts
//   dig @ADDRESS-OF-ETH0 www.bifurcate.test          (from another machine)
//
// IPv4 and IPv6, with and without EDNS. It is an authoritative server (RFC 1034, 1035, 2308, 4592, 6891): names
// outside its zone are refused, and what is no well-formed query is dropped without an answer. Edit `zone` below.

import type { Batch } from "bifurcate";

const origin = "bifurcate.test";
const ttl = 60;

/** The zone: a name below the origin ("@" is the origin itself, "*" a wildcard), and its records. */
const zone: Record<string, readonly [type: "A" | "AAAA" | "NS", value: string][]> = {
  "@": [
    ["NS", "ns1.bifurcate.test"],
    ["A", "192.0.2.80"],
    ["AAAA", "2001:db8::80"],
  ],
  ns1: [
    ["A", "192.0.2.53"],
    ["AAAA", "2001:db8::53"],
  ],
  www: [
    ["A", "192.0.2.80"],
    ["A", "192.0.2.81"],
    ["AAAA", "2001:db8::80"],
  ],
  v4only: [["A", "192.0.2.4"]],
  // Any name below lookup.bifurcate.test exists: a load generator can ask for a fresh one each time.
  "*.lookup": [
    ["A", "192.0.2.100"],
    ["AAAA", "2001:db8::100"],
  ],
};

/** Answers what can be answered; the rest is dropped, which is the default. */
export function handle(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const length = answer(view, batch.at, batch.size);
    if (length > 0) batch.send(length);
  }
}

// --- The zone, prepared once -------------------------------------------------------------------------------------

/** Types and classes of RFC 1035 3.2.2 and RFC 3596, the pseudo-type OPT of RFC 6891. */
const TYPE = { A: 1, NS: 2, SOA: 6, AAAA: 28, OPT: 41, ANY: 255 } as const;
const CLASS_IN = 1;
const CLASS_ANY = 255;

/** Response codes: RFC 1035 4.1.1, and BADVERS of RFC 6891 9. */
const RCODE = { none: 0, nameError: 3, notImplemented: 4, refused: 5, badVersion: 16 } as const;

/** Records of one type at one name, as they stand in an answer: the owner is a pointer to the question. */
interface RecordSet {
  readonly count: number;
  readonly bytes: Uint8Array;
}

/** A name of the zone in wire form and lower case. One without records exists all the same (RFC 4592 2.2.2). */
interface Node {
  readonly name: Uint8Array;
  readonly sets: Map<number, RecordSet>;
}

/** "www.test" as labels, each behind its length, ended by 0 (RFC 1035 3.1). */
function wireName(text: string): Uint8Array {
  const labels = text.toLowerCase().split(".");
  return Uint8Array.from([...labels.flatMap((label) => [label.length, ...Buffer.from(label)]), 0]);
}

function addressBytes(type: "A" | "AAAA", text: string): number[] {
  if (type === "A") return text.split(".").map(Number);
  const [head = "", tail] = text.split("::");
  const groups = (part: string): number[] => (part === "" ? [] : part.split(":").map((g) => parseInt(g, 16)));
  const [before, after] = [groups(head), groups(tail ?? "")];
  const zeros = new Array<number>(tail === undefined ? 0 : 8 - before.length - after.length).fill(0);
  return [...before, ...zeros, ...after].flatMap((group) => [group >> 8, group & 255]);
}

/** TYPE, CLASS, TTL, RDLENGTH and RDATA of a record: all but its owner. */
function recordBody(type: number, data: ArrayLike<number>): number[] {
  const bytes = Array.from(data);
  return [0, type, 0, CLASS_IN, ...bytesOf(ttl), bytes.length >> 8, bytes.length & 255, ...bytes];
}

function bytesOf(word: number): number[] {
  return [(word >>> 24) & 255, (word >>> 16) & 255, (word >>> 8) & 255, word & 255];
}

const originName = wireName(origin);

/** The record that goes with "there is no such thing": its TTL says for how long (RFC 2308 3). */
const soa = Uint8Array.from(
  recordBody(TYPE.SOA, [
    ...wireName(`ns1.${origin}`),
    ...wireName(`hostmaster.${origin}`),
    ...[2026010100, 3600, 600, 604800, ttl].flatMap(bytesOf),
  ]),
);

/** Of the owner's name: a pointer to the question, which begins at offset 12. */
const OWNER_IS_QUESTION = [0xc0, 12];

/** All names by the hash of their wire form, and the wildcards by what follows the star. */
const nodes = new Map<number, Node>();
const wildcards: Node[] = [];

function nodeFor(name: Uint8Array): Node {
  const key = hashOf(name);
  const node = nodes.get(key) ?? { name, sets: new Map<number, RecordSet>() };
  if (!sameBytes(node.name, name)) throw new Error("two names of the zone have one hash: rename one of them");
  nodes.set(key, node);
  return node;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

function addRecord(node: Node, type: number, data: ArrayLike<number>): void {
  const set = node.sets.get(type);
  const bytes = [...(set?.bytes ?? []), ...OWNER_IS_QUESTION, ...recordBody(type, data)];
  node.sets.set(type, { count: (set?.count ?? 0) + 1, bytes: Uint8Array.from(bytes) });
}

for (const [label, records] of Object.entries(zone)) {
  const full = label === "@" ? origin : `${label}.${origin}`;
  const labels = full.split(".");
  for (let up = labels.length; up > origin.split(".").length; up -= 1)
    nodeFor(wireName(labels.slice(-up).join(".")));
  const node = nodeFor(wireName(full));
  for (const [type, value] of records) {
    addRecord(node, TYPE[type], type === "NS" ? wireName(value) : addressBytes(type, value));
  }
  if (label.startsWith("*.")) wildcards.push({ name: node.name.subarray(2), sets: node.sets });
}
addRecord(nodeFor(originName), TYPE.SOA, soa.subarray(10));

/** FNV-1a over the name in lower case, 32 bits. */
function hashByte(hash: number, byte: number): number {
  return Math.imul(hash ^ byte, 0x01000193);
}

function hashOf(name: Uint8Array): number {
  return name.reduce(hashByte, 0x811c9dc5 | 0);
}

// --- The message -------------------------------------------------------------------------------------------------

/** What the last readName has found. One object, so that nothing is allocated for a frame. */
const found = { hash: 0, end: 0 };

/** Lengths of labels are below 64, so they are never mistaken for capital letters. */
function lowerCase(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte;
}

/** Reads the name at `at`: its hash, and where it ends. A question's name is never compressed. */
function readName(view: DataView, at: number, end: number): boolean {
  const limit = Math.min(end, at + 255);
  let hash = 0x811c9dc5 | 0;
  for (let label = at; label < limit;) {
    const length = view.getUint8(label);
    if (length > 63) return false;
    const next = label + 1 + length;
    if (next > limit) return false;
    for (let i = label; i < next; i += 1) hash = hashByte(hash, lowerCase(view.getUint8(i)));
    if (length === 0) {
      found.hash = hash;
      found.end = next;
      return true;
    }
    label = next;
  }
  return false;
}

/** Whether the name that ends at `end` ends with `suffix`, on a label's border if the suffix starts on one. */
function endsWith(view: DataView, start: number, end: number, suffix: Uint8Array): boolean {
  const from = end - suffix.length;
  if (from < start) return false;
  for (let i = 0; i < suffix.length; i += 1) {
    if (lowerCase(view.getUint8(from + i)) !== suffix[i]) return false;
  }
  // A label's text can look like labels: walk the real ones up to the border.
  let label = start;
  while (label < from) label += 1 + view.getUint8(label);
  return label === from;
}

function lookUp(view: DataView, start: number, end: number, hash: number): Node | null {
  const exact = nodes.get(hash);
  if (exact !== undefined && exact.name.length === end - start && endsWith(view, start, end, exact.name)) {
    return exact;
  }
  for (const wildcard of wildcards) {
    if (wildcard.name.length < end - start && endsWith(view, start, end, wildcard.name)) return wildcard;
  }
  return null;
}

/** What the query's OPT record says: the largest answer, the DO bit, the version. No OPT: size 0. */
const edns = { size: 0, flags: 0, version: 0 };

/** Looks for OPT among the additional records. @returns false when they are malformed. */
function readAdditional(view: DataView, from: number, end: number, count: number): boolean {
  edns.size = 0;
  let at = from;
  for (let n = 0; n < count; n += 1) {
    // An owner is the root, a pointer, or a name of its own.
    if (at >= end) return false;
    if (view.getUint8(at) >= 0xc0) at += 2;
    else if (readName(view, at, end)) at = found.end;
    else return false;
    if (at + 10 > end) return false;
    if (view.getUint16(at) === TYPE.OPT) {
      if (edns.size !== 0) return false;
      edns.size = Math.max(512, view.getUint16(at + 2));
      edns.version = view.getUint8(at + 5);
      edns.flags = view.getUint16(at + 6) & 0x8000;
    }
    at += 10 + view.getUint16(at + 8);
    if (at > end) return false;
  }
  return true;
}

function put(view: DataView, at: number, bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; i += 1) view.setUint8(at + i, bytes[i]!);
  return at + bytes.length;
}

/** Largest answer we send: it fits every path without fragments (DNS flag day 2020). */
const LARGEST = 1232;

/**
 * Turns the query in [dns, end) into its answer, in place.
 * @returns The answer's length in bytes, 0 when it deserves none.
 */
function respond(view: DataView, dns: number, end: number): number {
  if (end - dns < 12) return 0;
  const flags = view.getUint16(dns + 2);
  if ((flags & 0x8000) !== 0) return 0; // an answer: never answered, or two servers would talk forever
  if (view.getUint16(dns + 4) !== 1 || view.getUint32(dns + 6) !== 0) return 0;
  const name = dns + 12;
  if (!readName(view, name, end)) return 0;
  const { hash, end: nameEnd } = found;
  if (nameEnd + 4 > end) return 0;
  const type = view.getUint16(nameEnd);
  const kind = view.getUint16(nameEnd + 2);
  const questionEnd = nameEnd + 4;
  if (!readAdditional(view, questionEnd, end, view.getUint16(dns + 10))) return 0;

  let rcode: number = RCODE.none;
  let node: Node | null = null;
  const ours = endsWith(view, name, nameEnd, originName) && (kind === CLASS_IN || kind === CLASS_ANY);
  if (edns.size !== 0 && edns.version !== 0) rcode = RCODE.badVersion;
  else if ((flags & 0x7800) !== 0) rcode = RCODE.notImplemented;
  else if (!ours) rcode = RCODE.refused;
  else {
    node = lookUp(view, name, nameEnd, hash);
    if (node === null) rcode = RCODE.nameError;
  }

  const room = dns + Math.min(LARGEST, edns.size === 0 ? 512 : edns.size) - (edns.size === 0 ? 0 : 11);
  let at = questionEnd;
  let answers = 0;
  let authority = 0;
  let truncated = 0;
  if (rcode === RCODE.none || rcode === RCODE.nameError) {
    if (node !== null) {
      for (const [setType, set] of node.sets) {
        if (type !== setType && type !== TYPE.ANY) continue;
        if (at + set.bytes.length > room) {
          truncated = 0x0200;
          break;
        }
        at = put(view, at, set.bytes);
        answers += set.count;
      }
    }
    if (answers === 0 && truncated === 0) {
      // Nothing there: the SOA, owned by the origin, which the question's name ends with.
      view.setUint16(at, 0xc000 | (nameEnd - originName.length - dns));
      at = put(view, at + 2, soa);
      authority = 1;
    }
  }
  if (edns.size !== 0) {
    view.setUint8(at, 0);
    view.setUint16(at + 1, TYPE.OPT);
    view.setUint16(at + 3, LARGEST);
    view.setUint8(at + 5, rcode >> 4);
    view.setUint8(at + 6, 0);
    view.setUint16(at + 7, edns.flags);
    view.setUint16(at + 9, 0);
    at += 11;
  }
  // QR, the query's opcode and RD; AA where we have the authority.
  const authoritative = ours && rcode !== RCODE.notImplemented && rcode !== RCODE.badVersion ? 0x0400 : 0;
  view.setUint16(dns + 2, 0x8000 | (flags & 0x7900) | authoritative | truncated | (rcode & 15));
  view.setUint16(dns + 6, answers);
  view.setUint16(dns + 8, authority);
  view.setUint16(dns + 10, edns.size === 0 ? 0 : 1);
  return at - dns;
}

// --- The frame ---------------------------------------------------------------------------------------------------

/** Adds up 16-bit words (RFC 1071), to be folded later. */
function sum(view: DataView, from: number, to: number): number {
  let total = 0;
  let at = from;
  for (; at + 1 < to; at += 2) total += view.getUint16(at);
  return at < to ? total + (view.getUint8(at) << 8) : total;
}

function fold(total: number): number {
  let folded = total;
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return ~folded & 0xffff;
}

function swap(view: DataView, a: number, b: number, length: number): void {
  for (let i = 0; i < length; i += 2) {
    const kept = view.getUint16(a + i);
    view.setUint16(a + i, view.getUint16(b + i));
    view.setUint16(b + i, kept);
  }
}

/**
 * Turns the frame of a DNS query into the frame of its answer, in place. The query's own checksum is not looked
 * at: a sender on the same machine leaves it to the card, so it is often not there yet.
 * @param at Offset of its Ethernet header in `view`.
 * @param size Its length in bytes.
 * @returns The answer's length in bytes; 0 when there is nothing to answer.
 */
export function answer(view: DataView, at: number, size: number): number {
  let l2 = 14;
  while (l2 <= 18 && size >= l2 && isVlan(view.getUint16(at + l2 - 2))) l2 += 4;
  if (size < l2 + 20 || (view.getUint8(at) & 1) !== 0) return 0;
  const etherType = view.getUint16(at + l2 - 2);
  const ip = at + l2;
  const v6 = etherType === 0x86dd;
  let header: number;
  let total: number;
  if (v6) {
    if (size < l2 + 40 || view.getUint8(ip) >> 4 !== 6 || view.getUint8(ip + 6) !== 17) return 0;
    if (view.getUint8(ip + 8) === 0xff) return 0;
    header = 40;
    total = 40 + view.getUint16(ip + 4);
  } else {
    if (etherType !== 0x0800 || view.getUint8(ip) >> 4 !== 4 || view.getUint8(ip + 9) !== 17) return 0;
    if ((view.getUint16(ip + 6) & 0x3fff) !== 0 || view.getUint8(ip + 12) >= 224) return 0;
    header = (view.getUint8(ip) & 15) * 4;
    total = view.getUint16(ip + 2);
  }
  if (header < 20 || total < header + 8 || l2 + total > size) return 0;
  const udp = ip + header;
  const length = view.getUint16(udp + 4);
  if (length < 8 || length > total - header || view.getUint16(udp + 2) !== 53) return 0;

  const message = respond(view, udp + 8, udp + length);
  if (message === 0) return 0;

  const udpLength = 8 + message;
  swap(view, at, at + 6, 6);
  swap(view, udp, udp + 2, 2);
  view.setUint16(udp + 4, udpLength);
  view.setUint16(udp + 6, 0);
  if (v6) {
    swap(view, ip + 8, ip + 24, 16);
    view.setUint32(ip, 0x60000000);
    view.setUint16(ip + 4, udpLength);
    view.setUint8(ip + 7, 64);
  } else {
    swap(view, ip + 12, ip + 16, 4);
    view.setUint8(ip + 1, 0);
    view.setUint16(ip + 2, header + udpLength);
    view.setUint32(ip + 4, 0x00004000); // identification 0 and "don't fragment": RFC 6864
    view.setUint8(ip + 8, 64);
    for (let option = ip + 20; option < udp; option += 1) view.setUint8(option, 1); // no-operation
    view.setUint16(ip + 10, 0);
    view.setUint16(ip + 10, fold(sum(view, ip, udp)));
  }
  // The pseudo-header: both addresses, the protocol and the length (RFC 768, RFC 8200 8.1).
  const addresses = v6 ? sum(view, ip + 8, ip + 40) : sum(view, ip + 12, ip + 20);
  const check = fold(addresses + 17 + udpLength + sum(view, udp, udp + udpLength));
  view.setUint16(udp + 6, check === 0 ? 0xffff : check);
  return l2 + header + udpLength;
}

/** 802.1Q and 802.1ad. */
function isVlan(etherType: number): boolean {
  return etherType === 0x8100 || etherType === 0x88a8;
}
