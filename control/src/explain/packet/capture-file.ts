// One packet out of a capture file: pcap (draft-ietf-opsawg-pcap) or pcapng (draft-ietf-opsawg-pcapng), Ethernet only.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { BifurcateError, messageOf } from "../../errors.js";

const ETHERNET = 1;
/** Larger files are not read: one packet does not need them. */
const LARGEST = 256 * 1024 * 1024;
const SECTION = 0x0a0d0d0a;
const INTERFACE = 1;
const SIMPLE = 3;
const ENHANCED = 6;
const BYTE_ORDER = 0x1a2b3c4d;

/** Whether a word on the command line means a file: it has a slash, or the ending of a capture. */
export function isCaptureFile(word: string): boolean {
  return word.includes("/") || /\.(pcap|pcapng|cap)$/i.test(word);
}

/**
 * Frame `number` (from 1 on) of a capture file.
 * @throws E_PACKET_FILE: no such file, no capture, another link type, cut short, or fewer packets.
 */
export function frameFromFile(path: string, number: number): Uint8Array {
  const fail = (why: string, cause?: unknown): never => {
    throw new BifurcateError("E_PACKET_FILE", { what: `read packet ${number} of ${path}`, why, cause });
  };
  let bytes: Buffer;
  try {
    bytes = readWhole(path);
  } catch (thrown) {
    return fail(messageOf(thrown), thrown);
  }
  const magic = bytes.length >= 24 ? bytes.readUInt32LE(0) : 0;
  const frames = magic === SECTION ? pcapng(bytes, fail) : pcap(bytes, fail);
  let count = 0;
  for (const frame of frames) if (++count === number) return frame;
  return fail(count === 0 ? "it has no packets" : `it has ${count} packet${count === 1 ? "" : "s"}`);
}

function readWhole(path: string): Buffer {
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    if (size > LARGEST) throw new Error(`it has ${size} bytes, and at most ${LARGEST} are read`);
    const bytes = Buffer.alloc(size);
    let at = 0;
    for (let got = 1; got > 0 && at < size; at += got) got = readSync(file, bytes, at, size - at, null);
    return bytes.subarray(0, at);
  } finally {
    closeSync(file);
  }
}

type Fail = (why: string) => never;

/** Microseconds and nanoseconds, in either byte order. */
const MAGICS: ReadonlyMap<number, boolean> = new Map([
  [0xa1b2c3d4, true],
  [0xa1b23c4d, true],
  [0xd4c3b2a1, false],
  [0x4d3cb2a1, false],
]);

function* pcap(bytes: Buffer, fail: Fail): Generator<Uint8Array> {
  const little = bytes.length >= 24 ? MAGICS.get(bytes.readUInt32LE(0)) : undefined;
  if (little === undefined) return fail("it is no pcap or pcapng file");
  const word = (at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const type = word(20) & 0xffff;
  if (type !== ETHERNET) return fail(`its link type is ${type}, not Ethernet (1)`);
  for (let at = 24; at < bytes.length;) {
    if (at + 16 > bytes.length) return fail(`it is cut short at byte ${at}`);
    const length = word(at + 8);
    if (at + 16 + length > bytes.length) return fail(`it is cut short at byte ${at}`);
    yield Uint8Array.from(bytes.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
}

function* pcapng(bytes: Buffer, fail: Fail): Generator<Uint8Array> {
  let little = true;
  let types: number[] = [];
  const word = (at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  for (let at = 0; at < bytes.length;) {
    if (at + 12 > bytes.length) return fail(`it is cut short at byte ${at}`);
    // The type of a section is the same in both byte orders; what follows tells which it is.
    if (bytes.readUInt32LE(at) === SECTION) {
      little = bytes.readUInt32LE(at + 8) === BYTE_ORDER;
      types = [];
    }
    const [kind, length] = [word(at), word(at + 4)];
    if (length < 12 || length % 4 !== 0 || at + length > bytes.length)
      return fail(`it is cut short at byte ${at}`);
    const end = at + length - 4;
    if (kind === INTERFACE && length >= 20) types.push(word(at + 8) & 0xffff);
    const header = kind === ENHANCED ? 28 : kind === SIMPLE ? 12 : 0;
    if (header > 0) {
      if (at + header > end) return fail(`its block at byte ${at} is too short`);
      const [type, captured] =
        kind === ENHANCED
          ? [types[word(at + 8)], word(at + 20)]
          : [types[0], Math.min(word(at + 8), end - at - 12)];
      if (type !== ETHERNET)
        return fail(`the link type of a packet is ${type ?? "not told"}, not Ethernet (1)`);
      if (at + header + captured > end) return fail(`its block at byte ${at} claims more than it holds`);
      yield Uint8Array.from(bytes.subarray(at + header, at + header + captured));
    }
    at += length;
  }
}
