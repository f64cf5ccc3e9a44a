// The packet of a measurement, byte by byte, and the percentiles of times.
import { describe, expect, it } from "vitest";
import { Histogram } from "./histogram.js";
import { addressBytes, FLOW_PORT, FRAME_BYTES, isOurs, Packet, PAYLOAD_AT, sentAt } from "./packet.js";

const from = { mac: "02:bf:00:00:00:02", address: "fe80::bf:ff:fe00:2" };
const to = { mac: "02:bf:00:00:00:01", address: "fe80::bf:ff:fe00:1" };

/** The one's complement sum over pseudo-header and UDP (RFC 8200, 8.1): 0xffff where the checksum is right. */
function verify(frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset);
  let sum = 17 + (FRAME_BYTES - 54);
  for (let at = 22; at < FRAME_BYTES; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

describe("an address", () => {
  const cases: [string, string][] = [
    ["::", "00000000000000000000000000000000"],
    ["::1", "00000000000000000000000000000001"],
    ["fe80::bf:ff:fe00:1", "fe8000000000000000bf00fffe000001"],
    ["2001:db8:1:2:3:4:5:6", "20010db8000100020003000400050006"],
    ["fe80::", "fe800000000000000000000000000000"],
  ];
  for (const [text, hex] of cases) {
    it(text, () => {
      const bytes = addressBytes(text);
      expect(bytes.length).toBe(16);
      expect(Buffer.from(bytes).toString("hex")).toBe(hex);
    });
  }
});

describe("the packet", () => {
  it("has its addresses, its ports, and number and time in the payload", () => {
    const pool = new Uint8Array(200);
    const view = new DataView(pool.buffer);
    const time = 2 ** 52 + 12345;
    new Packet(from, to).write(pool, view, 100, 7, time);
    const frame = pool.subarray(100, 100 + FRAME_BYTES);
    expect(Buffer.from(frame.subarray(0, 14)).toString("hex")).toBe("02bf0000000102bf0000000286dd");
    expect(view.getUint16(100 + 56)).toBe(FLOW_PORT);
    expect(view.getUint32(100 + PAYLOAD_AT)).toBe(7);
    expect(sentAt(view, 100 + PAYLOAD_AT)).toBe(time);
  });

  it("has a right checksum, whatever its number and time", () => {
    const packet = new Packet(from, to);
    const pool = new Uint8Array(FRAME_BYTES);
    const view = new DataView(pool.buffer);
    for (const number of [0, 1, 0xffff, 0x10000, 0xdeadbeef, 0xffffffff]) {
      for (const time of [0, 1, 0xffffffff, 2 ** 32, 2 ** 53 - 1]) {
        packet.write(pool, view, 0, number, time);
        expect(verify(pool)).toBe(0xffff);
        expect(view.getUint16(60)).not.toBe(0);
      }
    }
  });
});

describe("a frame of the flow", () => {
  const pool = new Uint8Array(FRAME_BYTES);
  const view = new DataView(pool.buffer);
  const packet = new Packet(from, to);

  it("is known among others, whoever it is addressed to", () => {
    packet.address("02:bf:00:00:0f:01");
    packet.write(pool, view, 0, 1, 1);
    expect(Buffer.from(pool.subarray(0, 6)).toString("hex")).toBe("02bf00000f01");
    expect(isOurs(view, 0, FRAME_BYTES)).toBe(true);
    expect(verify(pool)).toBe(0xffff);
  });

  it.each([
    ["cut short", FRAME_BYTES - 1, () => undefined],
    ["of another protocol", FRAME_BYTES, () => view.setUint16(12, 0x0800)],
    ["to another port", FRAME_BYTES, () => view.setUint16(56, FLOW_PORT + 1)],
  ])("is none when it is %s", (_, size, change) => {
    packet.write(pool, view, 0, 1, 1);
    change();
    expect(isOurs(view, 0, size)).toBe(false);
  });
});

describe("the histogram", () => {
  it("gives percentiles within 3 %", () => {
    const times = new Histogram();
    for (let time = 1; time <= 100_000; time += 1) times.add(time * 10);
    for (const share of [0.01, 0.5, 0.9, 0.99]) {
      expect(Math.abs(times.percentile(share)! / (share * 1000) - 1)).toBeLessThan(0.03);
    }
  });

  it("of nothing has none, forgets, and takes the smallest and the largest", () => {
    const times = new Histogram();
    expect(times.percentile(0.5)).toBeNull();
    times.add(-5);
    expect(times.percentile(0.5)).toBe(0);
    times.clear();
    expect(times.percentile(0.5)).toBeNull();
    times.add(2 ** 52);
    expect(times.percentile(1)).toBeGreaterThan(1e6);
  });
});
