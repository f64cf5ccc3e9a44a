// The firewall and the forwarder on batches built by hand: which frames pass, which end, and what leaves.
import { beforeAll, describe, expect, it } from "vitest";
import { Batch } from "../bifurcate/src/batch.js";
import * as layout from "../bifurcate/src/layout.js";
import type { Handler } from "../bifurcate/src/handler.js";

const u16 = (n: number): number[] => [(n >> 8) & 255, n & 255];

/** An Ethernet frame with an IPv4 datagram; its header checksum is right. */
function ipv4(options: {
  from?: number[];
  protocol?: number;
  port?: number;
  fragment?: number;
  ttl?: number;
}): Uint8Array {
  const { from = [192, 0, 2, 2], protocol = 17, port = 53, fragment = 0, ttl = 64 } = options;
  const payload = [...u16(40000), ...u16(port), ...u16(12), 0, 0, 1, 2, 3, 4];
  const header = [
    0x45,
    0,
    ...u16(20 + payload.length),
    0,
    1,
    ...u16(fragment),
    ttl,
    protocol,
    0,
    0,
    ...from,
    192,
    0,
    2,
    1,
  ];
  const sum = checksum(header);
  header[10] = sum >> 8;
  header[11] = sum & 255;
  return Uint8Array.from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, ...header, ...payload]);
}

function checksum(bytes: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/** Runs a handler on frames; gives each frame's verdict and its bytes afterwards. */
function run(handle: Handler, frames: readonly Uint8Array[]): { verdict: number; bytes: Uint8Array }[] {
  const pool = new ArrayBuffer(frames.length * 2048);
  const block = new ArrayBuffer(layout.BLOCK_WORDS * 4);
  const words = new Int32Array(block);
  frames.forEach((frame, n) => {
    new Uint8Array(pool).set(frame, n * 2048 + 256);
    const row = layout.HEADER_WORDS + n * layout.ROW_WORDS;
    words[row + layout.ROW_OFFSET] = n * 2048 + 256;
    words[row + layout.ROW_LENGTH] = frame.length;
  });
  const batch = new Batch(pool, block);
  batch.begin(frames.length);
  const context = { port: "test", queue: 0, queues: 1, send: () => false, release: () => false };
  handle(batch, context);
  return frames.map((_, n) => {
    const row = layout.HEADER_WORDS + n * layout.ROW_WORDS;
    const length = words[row + layout.ROW_LENGTH]!;
    return { verdict: words[row + layout.ROW_VERDICT]!, bytes: new Uint8Array(pool, n * 2048 + 256, length) };
  });
}

describe("the firewall", () => {
  let handle: Handler;
  beforeAll(async () => ({ handle } = await import("./firewall.js")));
  const verdict = (frame: Uint8Array): number => run(handle, [frame])[0]!.verdict;

  it("drops what a rule forbids", () => {
    expect(verdict(ipv4({ protocol: 6, port: 23 }))).toBe(layout.VERDICT_DROP);
    expect(verdict(ipv4({ protocol: 17, port: 161 }))).toBe(layout.VERDICT_DROP);
    expect(verdict(ipv4({ from: [198, 51, 100, 255], port: 80 }))).toBe(layout.VERDICT_DROP);
  });

  it("passes everything else to the kernel, what it does not understand too", () => {
    const others = [
      ipv4({ protocol: 17, port: 23 }),
      ipv4({ protocol: 6, port: 161 }),
      ipv4({ from: [198, 51, 101, 0], port: 80 }),
      ipv4({ protocol: 17, port: 161, fragment: 3 }),
      ipv4({}).subarray(0, 20),
      new Uint8Array(60).fill(0xff),
    ];
    expect(run(handle, others).map((each) => each.verdict)).toEqual(others.map(() => layout.VERDICT_PASS));
  });
});

describe("the forwarder", () => {
  let handle: Handler;
  beforeAll(async () => {
    process.env["BACKENDS"] = "02:00:00:00:00:0a,02:00:00:00:00:0b";
    ({ handle } = await import("./forwarder.js"));
  });

  it("sends to one of the servers, a hop older, with a header checksum that is right", () => {
    const [sent] = run(handle, [ipv4({ ttl: 64 })]);
    expect(sent!.verdict).toBe(layout.VERDICT_SEND);
    expect([...sent!.bytes.subarray(0, 5), ...sent!.bytes.subarray(6, 12)]).toEqual([
      2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1,
    ]);
    expect([0x0a, 0x0b]).toContain(sent!.bytes[5]);
    expect(sent!.bytes[22]).toBe(63);
    expect(checksum(sent!.bytes.subarray(14, 34))).toBe(0);
  });

  it("keeps a client at its server, and uses them all", () => {
    const clients = Array.from({ length: 64 }, (_, n) => ipv4({ from: [192, 0, 2, n] }));
    const first = run(handle, clients).map((each) => each.bytes[5]);
    expect(run(handle, clients).map((each) => each.bytes[5])).toEqual(first);
    expect(new Set(first)).toEqual(new Set([0x0a, 0x0b]));
  });

  it("leaves to the kernel what has lived long enough, fragments, and what it does not understand", () => {
    const others = [
      ipv4({ ttl: 1 }),
      ipv4({ fragment: 0x2000 }),
      ipv4({}).subarray(0, 30),
      new Uint8Array(60),
    ];
    const after = run(handle, others);
    expect(after.map((each) => each.verdict)).toEqual(others.map(() => layout.VERDICT_PASS));
    expect(after.map((each) => [...each.bytes])).toEqual(others.map((each) => [...each]));
  });
});
