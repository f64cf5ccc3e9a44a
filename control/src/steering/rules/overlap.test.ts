// Flows that share packets are found, and "disjoint" is never said of flows that share one.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import type { SocketFacts } from "../../kernel.js";
import { compile, type Filter } from "./compile.js";
import { matches } from "./interpret.js";
import { matchesSocket, overlap } from "./overlap.js";
import { parse } from "./parser.js";
import { expression } from "./testing/expressions.js";
import { frame } from "./testing/packets.js";

function compileOrNull(source: string): Filter | null {
  try {
    return compile(source);
  } catch (error) {
    if (error instanceof BifurcateError) return null;
    throw error;
  }
}

describe("overlap", () => {
  it.each([
    ["udp dst port 53", "udp dst port 54"],
    ["udp port 53", "udp and not port 53"],
    ["tcp port 80", "udp port 80"],
    ["ip", "ip6"],
    ["ip and udp", "vlan and ip and udp"],
    ["vlan 5", "vlan 6 and ip"],
    ["src net 10.0.0.0/8", "ip src net 192.168.0.0/16"],
    ["udp dst portrange 1000-2000", "udp dst port 2001"],
    ["ether dst 02:00:00:00:00:01", "ether multicast"],
    ["ip6 dst host fe80::1", "ip6 dst net 2001:db8::/32"],
    ["len > 100", "less 50"],
  ])("%j and %j share nothing", (a, b) => {
    expect(overlap(parse(a), parse(b))).toEqual({ kind: "disjoint" });
  });

  it.each([
    ["udp dst port 53", "udp", "IPv6, UDP, to port 53"],
    ["udp port 53", "host 10.0.0.1", "IPv4, UDP, from 10.0.0.1"],
    ["udp dst portrange 1000-2000", "ip and udp port 1500", "IPv4, UDP"],
    ["vlan 5", "vlan and tcp dst port 80", "VLAN 5"],
    ["all", "arp", "ARP"],
    ["net 10.0.0.0/8", "dst host 10.1.2.3", "10.1.2.3"],
    ["tcp[tcpflags] & tcp-syn != 0", "tcp dst port 22", "IPv4, TCP, to port 22"],
  ])("%j and %j share frames", (a, b, example) => {
    const answer = overlap(parse(a), parse(b));
    expect(answer.kind).toBe("overlaps");
    if (answer.kind !== "overlaps") return;
    expect(answer.example).toContain(example);
    expect(answer.frame).not.toBeNull();
  });

  it("never says disjoint of expressions that match the same frame, and its examples match both", () => {
    let [shared, disjoint, proven] = [0, 0, 0];
    fc.assert(
      fc.property(
        expression,
        expression,
        fc.array(frame, { minLength: 8, maxLength: 24 }),
        (one, other, frames) => {
          const [a, b] = [compileOrNull(one), compileOrNull(other)];
          if (a === null || b === null) return;
          const answer = overlap(a.tree, b.tree);
          const both = frames.find((bytes) => matches(a.program, bytes) && matches(b.program, bytes));
          if (both !== undefined) {
            shared++;
            expect(answer.kind, `'${one}' and '${other}' on ${Buffer.from(both).toString("hex")}`).toBe(
              "overlaps",
            );
          }
          if (answer.kind === "disjoint") disjoint++;
          else if (answer.frame !== null) {
            proven++;
            expect(matches(a.program, answer.frame) && matches(b.program, answer.frame)).toBe(true);
          }
        },
      ),
      { numRuns: Number(process.env["RUNS"] ?? 2000) },
    );
    expect(Math.min(shared, disjoint, proven)).toBeGreaterThan(100);
  });
});

const SSH: SocketFacts = {
  protocol: "tcp",
  family: 4,
  localAddress: "10.0.0.1",
  localPort: 22,
  remoteAddress: "10.0.0.2",
  remotePort: 50000,
  state: "established",
  inode: 1,
};
const DNS: SocketFacts = {
  ...SSH,
  protocol: "udp",
  family: 6,
  localAddress: "::",
  localPort: 53,
  remoteAddress: "::",
  remotePort: 0,
  state: "listen",
};

describe("matchesSocket", () => {
  it.each([
    ["tcp", SSH, true],
    ["tcp port 22", SSH, true],
    ["tcp dst port 22 and not src host 10.0.0.2", SSH, false],
    ["tcp and not port 22", SSH, false],
    ["udp", SSH, false],
    ["net 10.0.0.0/8", SSH, true],
    ["ip6", SSH, false],
    ["all", SSH, true],
    ["tcp src port 50000", SSH, true],
    ["tcp src port 50001", SSH, false],
    ["udp dst port 53", DNS, true],
    ["ip and udp dst port 53", DNS, true],
    ["ip6 and udp dst port 53", DNS, true],
    ["udp dst port 54", DNS, false],
    ["vlan 5 and udp dst port 53", DNS, false],
  ])("%j takes packets of the socket: %#", (source, socket, taken) => {
    expect(matchesSocket(parse(source), socket).kind).toBe(taken ? "overlaps" : "disjoint");
  });

  it("looks under the tags of the namespace's VLAN devices", () => {
    const tree = parse("vlan 5 and udp dst port 53");
    expect(matchesSocket(tree, DNS, [5]).kind).toBe("overlaps");
    expect(matchesSocket(tree, DNS, [6]).kind).toBe("disjoint");
  });

  it("takes an IPv4 address that is mapped into IPv6 for what it is", () => {
    const mapped: SocketFacts = {
      ...SSH,
      family: 6,
      localAddress: "::ffff:10.0.0.1",
      remoteAddress: "::ffff:10.0.0.2",
    };
    expect(matchesSocket(parse("src host 10.0.0.2"), mapped).kind).toBe("overlaps");
    expect(matchesSocket(parse("ip6"), mapped).kind).toBe("disjoint");
  });
});
