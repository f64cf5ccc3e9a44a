// Which frames a lease of a flow may send as its own: answers to it from the card's addresses, and nothing else.
import { describe, expect, it } from "vitest";
import { matches } from "./interpret.js";
import { contains } from "./overlap.js";
import { parse } from "./parser.js";
import { ownTransmit } from "./reverse.js";

const CARD = { mac: "02:00:00:00:00:01", addresses: ["10.0.0.1", "2001:db8::1"] };

interface Udp {
  readonly sourceMac?: string;
  readonly source?: readonly number[];
  readonly sourcePort?: number;
  readonly fragment?: number;
  readonly type?: number;
  readonly tag?: boolean;
}

/** A UDP datagram over IPv4 in an Ethernet frame, from the card unless said otherwise. */
function udp(change: Udp = {}): Uint8Array {
  const {
    sourceMac = CARD.mac,
    source = [10, 0, 0, 1],
    sourcePort = 53,
    fragment = 0,
    type = 0x0800,
  } = change;
  const mac = sourceMac.split(":").map((each) => Number.parseInt(each, 16));
  const tag = change.tag === true ? [0x81, 0, 0, 5] : [];
  const ip = [0x45, 0, 0, 32, 0, 0, fragment >> 8, fragment & 255, 64, 17, 0, 0, ...source, 10, 0, 0, 9];
  const head = [sourcePort >> 8, sourcePort & 255, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4];
  return Uint8Array.from([2, 0, 0, 0, 0, 9, ...mac, ...tag, type >> 8, type & 255, ...ip, ...head]);
}

function may(flows: readonly string[], frame: Uint8Array): boolean {
  return matches(ownTransmit(flows, CARD).program, frame);
}

describe("what a lease of 'udp dst port 53' may send", () => {
  const flows = ["udp dst port 53"];

  it("is the answer", () => {
    expect(may(flows, udp())).toBe(true);
  });

  it.each([
    ["another Ethernet address", udp({ sourceMac: "02:00:00:00:00:02" })],
    ["another IP address", udp({ source: [10, 0, 0, 2] })],
    ["another port", udp({ sourcePort: 54 })],
    ["a first fragment", udp({ fragment: 0x2000 })],
    ["a later fragment", udp({ fragment: 0x0010 })],
    ["ARP", udp({ type: 0x0806 })],
    ["a VLAN tag", udp({ tag: true })],
    ["a short frame", udp().subarray(0, 20)],
  ])("is not %s", (_name, frame) => {
    expect(may(flows, frame)).toBe(false);
  });
});

describe("what a lease of the whole card may send", () => {
  it("is IP from the card's own addresses", () => {
    expect(may(["all"], udp({ sourcePort: 9 }))).toBe(true);
    expect(may(["all"], udp({ source: [10, 0, 0, 2] }))).toBe(false);
    expect(may(["all"], udp({ type: 0x0806 }))).toBe(false);
  });
});

describe("a flow that cannot be turned round", () => {
  it.each(["udp[8] = 1", "ether multicast", "vlan 5 and udp", "ip[12:4] = 1"])(
    "is said to be so: %s",
    (flow) => {
      expect(() => ownTransmit([flow], CARD)).toThrow("nobody can tell which frames answer it");
    },
  );

  it("is none from a card without addresses", () => {
    expect(() => ownTransmit(["udp"], { ...CARD, addresses: [] })).toThrow("no IP address");
  });
});

describe("whether one flow is within another", () => {
  it.each([
    ["udp dst port 53", "udp dst port 53", true],
    ["udp dst port 53", "udp dst port 53 and src net 10.0.0.0/8", true],
    ["udp", "udp dst port 53", true],
    ["all", "icmp", true],
    ["tcp dst portrange 80-90", "tcp dst port 85", true],
    ["udp dst port 53", "udp", false],
    ["udp dst port 53", "udp port 53", false],
    ["udp dst port 53", "tcp dst port 53", false],
    ["udp dst port 53", "udp dst port 53 or icmp", false],
    ["udp", "all", false],
    ["net 10.0.0.0/8", "net 10.1.0.0/16", true],
    ["net 10.1.0.0/16", "net 10.0.0.0/8", false],
  ])("%s holds %s: %s", (outer, inner, expected) => {
    expect(contains(parse(outer), parse(inner))).toBe(expected);
  });
});
