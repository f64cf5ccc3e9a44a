// The parser of the broker's protocol: what is right comes through unchanged, anything else is an error and nothing worse.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BadMessage } from "./fields.js";
import {
  encode,
  LONGEST,
  parseBrokerMessage,
  parseClientMessage,
  type BrokerMessage,
  type ClientMessage,
} from "./messages.js";

const LEASE = {
  type: "lease",
  request: 7,
  lease: {
    device: "eth0",
    flows: ["udp dst port 53"],
    mechanism: "auto",
    transmit: "own",
    pass: false,
    queues: 1,
    frames: 4096,
    frameSize: 2048,
    ringSize: 2048,
    zeroCopy: "prefer",
    busyPoll: false,
    pages: "auto",
  },
} as const satisfies ClientMessage;

const CLIENT: readonly ClientMessage[] = [
  { type: "hello", versions: [1], name: "dns" },
  LEASE,
  { type: "return", request: 1, lease: "lease-00000001" },
  { type: "resume", request: 1, lease: "lease-00000001" },
  { type: "release", request: 1, lease: "lease-00000001" },
  { type: "list", request: 0xffff_ffff },
  { type: "list", request: 1, after: "2026-01-01T00:00:00.000Z lease-00000001" },
];

const BROKER: readonly BrokerMessage[] = [
  { type: "welcome", version: 1, broker: "0.1.0", pid: 1, netns: 4026531840 },
  { type: "done", request: 3 },
  { type: "revoked", lease: "lease-00000001", why: "taken back" },
  {
    type: "error",
    request: null,
    error: { code: "E_LEASE_DENIED", what: "lease", why: "line one\nline two", next: "ask" },
  },
  { type: "leases", request: 1, leases: [] },
  { type: "leases", request: 1, leases: [], next: "2026-01-01T00:00:00.000Z lease-00000001" },
];

function refused(bytes: Uint8Array): string {
  try {
    parseClientMessage(bytes);
  } catch (thrown) {
    if (thrown instanceof BadMessage) return thrown.message;
    throw thrown;
  }
  return "";
}

describe("the protocol's messages", () => {
  it("come through as they were sent", () => {
    for (const message of CLIENT) expect(parseClientMessage(encode(message))).toEqual(message);
    for (const message of BROKER) expect(parseBrokerMessage(encode(message))).toEqual(message);
  });

  it("hold as many leases as a broker may list, which is more than a client may say", () => {
    const one = {
      id: "lease-00000001",
      state: "granted",
      device: "eth0",
      flows: ["udp dst port 53"],
      mechanism: "port",
      transmit: "own",
      pass: false,
      uid: 1,
      pid: 2,
      memory: 4096,
      since: "2026-01-01T00:00:00.000Z",
    } as const;
    const message: BrokerMessage = {
      type: "leases",
      request: 1,
      leases: Array.from({ length: 4000 }, () => one),
    };
    expect(encode(message).length).toBeGreaterThan(20 * LONGEST);
    expect(parseBrokerMessage(encode(message))).toEqual(message);
  });

  it("name the queues that sockets are bound to, also those of a broker that says nothing of them", () => {
    const lease = {
      ...{ id: "lease-00000001", device: "eth0", mechanism: "port", port: "bff00000001", mtu: 1500 },
      ...{ mac: "02:00:00:00:00:01", queues: 2, transmit: "own", pass: false, frames: 64, frameSize: 2048 },
      ...{ jumboFrames: 0, ringSize: 64, filled: 32, zeroCopy: false, needWakeup: true, multiBuffer: false },
      ...{ busyPoll: false, leftToCard: true, xdp: "driver", bypasses: [], notes: [] },
    };
    const read = (change: object): unknown => {
      const bytes = Buffer.from(
        JSON.stringify({ type: "granted", request: 1, lease: { ...lease, ...change } }),
      );
      const message = parseBrokerMessage(bytes);
      return message.type === "granted" ? message.lease.portQueues : null;
    };
    expect(read({})).toEqual([0, 1]);
    expect(read({ mechanism: "queue", port: "eth0", portQueues: [2, 7] })).toEqual([2, 7]);
    for (const portQueues of [[-1], ["2"], 7, [1.5]]) expect(() => read({ portQueues })).toThrow(BadMessage);
  });

  it("name a card instead of flows where one is leased whole, and where its memory lies", () => {
    const whole = { ...LEASE.lease, device: "0000:01:00.0", mechanism: "vfio", flows: [], transmit: "raw" };
    const asked = { ...LEASE, lease: whole } as const;
    const bytes = (value: object): Uint8Array => Buffer.from(JSON.stringify(value));
    expect(parseClientMessage(bytes(asked))).toEqual(asked);
    const flows = { ...asked, lease: { ...whole, flows: ["udp"] } };
    expect(refused(bytes(flows))).toContain("flows is not empty");
    const lease = {
      ...{ id: "lease-00000001", device: "0000:01:00.0", mechanism: "vfio", port: "0000:01:00.0", mtu: 0 },
      ...{ mac: "", queues: 1, portQueues: [0], transmit: "raw", pass: false, frames: 64, frameSize: 2048 },
      ...{ jumboFrames: 0, ringSize: 64, filled: 0, zeroCopy: true, needWakeup: false, multiBuffer: false },
      ...{ busyPoll: false, leftToCard: false, xdp: "driver", bypasses: [], notes: [] },
      card: { iova: 2 ** 32, ringsAt: 2 ** 21, ringBytes: 2 ** 21 },
    };
    const granted = { type: "granted", request: 1, lease };
    expect(parseBrokerMessage(bytes(granted))).toEqual(granted);
    for (const card of [undefined, {}, { ...lease.card, iova: -1 }, { ...lease.card, ringsAt: 2 ** 40 }]) {
      expect(() => parseBrokerMessage(bytes({ ...granted, lease: { ...lease, card } }))).toThrow(BadMessage);
    }
  });

  it("are refused when they are cut short, at any byte", () => {
    const bytes = encode(LEASE);
    for (let length = 0; length < bytes.length; length++) {
      expect(refused(bytes.subarray(0, length)), `${length}`).not.toBe("");
    }
  });

  it("are refused when they are too long, no UTF-8, no object, or of an unknown type", () => {
    expect(refused(Buffer.alloc(LONGEST + 1, 0x20))).toContain("more than");
    expect(refused(Uint8Array.of(0xff, 0xfe))).toContain("UTF-8");
    for (const text of ["", "[]", "null", "7", '"lease"', '{"type":"take"}', "{}"]) {
      expect(refused(Buffer.from(text)), text).not.toBe("");
    }
  });

  it("ignore fields of a later version", () => {
    const later = { ...LEASE, since: 9, lease: { ...LEASE.lease, colour: "blue" } };
    expect(parseClientMessage(Buffer.from(JSON.stringify(later)))).toEqual(LEASE);
  });

  it("name the field that is out of its bounds", () => {
    const wrong: [string, unknown][] = [
      ["device", "sixteen-bytes-xx"],
      ["device", "a\nb"],
      ["flows", []],
      ["flows", Array.from({ length: 17 }, () => "udp")],
      ["flows", ["x".repeat(2000)]],
      ["queues", 0],
      ["queues", 1.5],
      ["frames", 2 ** 40],
      ["frameSize", 3000],
      ["ringSize", 100],
      ["transmit", "all"],
      ["pass", 1],
      ["pages", "gigantic"],
    ];
    for (const [field, value] of wrong) {
      const message = { ...LEASE, lease: { ...LEASE.lease, [field]: value } };
      expect(refused(Buffer.from(JSON.stringify(message))), field).toContain(field);
    }
    for (const field of Object.keys(LEASE.lease)) {
      const rest = Object.fromEntries(Object.entries(LEASE.lease).filter(([name]) => name !== field));
      const message = { ...LEASE, lease: rest };
      expect(refused(Buffer.from(JSON.stringify(message))), field).toContain(field);
    }
  });

  it("never make the parser fail in another way, whatever bytes come", () => {
    const near = fc
      .tuple(
        fc.constantFrom(...CLIENT, ...BROKER),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      )
      .map(([message, changes]) => {
        const bytes = Uint8Array.from(encode(message));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        return bytes;
      });
    const shaped = fc.jsonValue().map((value) => Buffer.from(JSON.stringify(value)));
    const typed = fc
      .record({
        type: fc.constantFrom(
          "hello",
          "lease",
          "return",
          "resume",
          "release",
          "list",
          "granted",
          "error",
          "leases",
        ),
        request: fc.anything(),
        lease: fc.jsonValue(),
        versions: fc.jsonValue(),
        leases: fc.jsonValue(),
        error: fc.jsonValue(),
      })
      .map((value) =>
        Buffer.from(JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? null : each))),
      );
    fc.assert(
      fc.property(fc.oneof(near, shaped, typed, fc.uint8Array({ maxLength: 200 })), (bytes) => {
        for (const parse of [parseClientMessage, parseBrokerMessage]) {
          try {
            parse(bytes);
          } catch (thrown) {
            if (!(thrown instanceof BadMessage)) throw thrown;
          }
        }
      }),
      { numRuns: 3000 },
    );
  });

  it("cannot be brought to fail by depth", () => {
    const deep = "[".repeat(10_000) + "]".repeat(10_000);
    expect(refused(Buffer.from(`{"type":"lease","request":1,"lease":${deep}}`))).toContain("lease");
  });
});
