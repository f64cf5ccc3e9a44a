// Addresses as pcap-filter(7) writes them, and back to text.

/** Whether the text is an IPv6 address (RFC 4291 section 2.2), with or without an IPv4 tail. */
export function isIpv6Text(text: string): boolean {
  return splitIpv6(text) !== null;
}

/** Splits into 16-bit groups before and after "::" (after: null when there is none). */
function splitIpv6(text: string): { before: number[]; after: number[] | null } | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const before = groups(halves[0]!, halves.length === 1);
  const after = halves.length === 2 ? groups(halves[1]!, true) : null;
  if (before === null || (halves.length === 2 && after === null)) return null;
  const count = before.length + (after?.length ?? 0);
  if (halves.length === 1 ? count !== 8 : count > 7) return null;
  return { before, after };
}

function groups(text: string, mayEndWithIpv4: boolean): number[] | null {
  if (text === "") return [];
  const parts = text.split(":");
  const result: number[] = [];
  for (const [index, part] of parts.entries()) {
    if (/^[0-9A-Fa-f]{1,4}$/.test(part)) {
      result.push(Number.parseInt(part, 16));
    } else if (mayEndWithIpv4 && index === parts.length - 1 && /^\d+(\.\d+){3}$/.test(part)) {
      const bytes = part.split(".").map(Number);
      if (bytes.some((byte) => byte > 255)) return null;
      result.push((bytes[0]! << 8) | bytes[1]!, (bytes[2]! << 8) | bytes[3]!);
    } else {
      return null;
    }
  }
  return result;
}

/** An IPv6 address as four words of 32 bits, or null. */
export function parseIpv6(text: string): number[] | null {
  const split = splitIpv6(text);
  if (split === null) return null;
  const { before, after } = split;
  const all = after === null ? before : [...before, ...zeros(8 - before.length - after.length), ...after];
  return [0, 2, 4, 6].map((index) => ((all[index]! << 16) | all[index + 1]!) >>> 0);
}

function zeros(count: number): number[] {
  return new Array<number>(count).fill(0);
}

/**
 * One to four decimal numbers with dots between: the value with as many bytes as were written, and how many
 * bits that is. Null when a part exceeds 255 or is no decimal number.
 */
export function parseDotted(text: string): { value: number; bits: number } | null {
  let value = 0;
  const parts = text.split(".");
  for (const part of parts) {
    if (!/^\d+$/.test(part) || Number(part) > 255) return null;
    value = ((value << 8) | Number(part)) >>> 0;
  }
  return { value, bits: parts.length * 8 };
}

/** An Ethernet address in any of the forms of pcap-filter(7), as six bytes. */
export function parseMac(text: string): number[] {
  const digits = /[:.-]/.test(text) ? text.split(/[:.-]/) : text.match(/../g)!;
  if (digits.length === 6) return digits.map((digit) => Number.parseInt(digit, 16));
  return digits
    .flatMap((digit) => [digit.slice(0, 2), digit.slice(2)])
    .map((byte) => Number.parseInt(byte, 16));
}

/** Mask of `bits` ones from the left, of 32 bits. */
export function mask32(bits: number): number {
  return bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0;
}

/** Mask of `bits` ones from the left, of 128 bits in four words. */
export function mask128(bits: number): number[] {
  return [0, 32, 64, 96].map((from) => mask32(Math.min(32, Math.max(0, bits - from))));
}

/** 0x0a000001 -> "10.0.0.1". */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join(".");
}

/** Four words -> the text form of RFC 5952. */
export function formatIpv6(words: readonly number[]): string {
  const parts = words.flatMap((word) => [word >>> 16, word & 0xffff]);
  let best = { start: 0, length: 0 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && parts[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const text = (from: number, to: number): string =>
    parts
      .slice(from, to)
      .map((part) => part.toString(16))
      .join(":");
  if (best.length < 2) return text(0, 8);
  return `${text(0, best.start)}::${text(best.start + best.length, 8)}`;
}

/** Six bytes -> "02:00:00:00:00:01". */
export function formatMac(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Number of leading ones if the mask is a prefix, else null. */
export function prefixLength(words: readonly number[]): number | null {
  let length = 0;
  let ended = false;
  for (const word of words) {
    for (let bit = 31; bit >= 0; bit--) {
      const one = ((word >>> bit) & 1) === 1;
      if (one && ended) return null;
      if (one) length++;
      else ended = true;
    }
  }
  return length;
}
