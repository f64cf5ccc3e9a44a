// The DNS example on frames built by hand: what it answers, what it ignores, and that its checksums are right.
import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { answer } from "./dns.js";

const TYPES = { A: 1, NS: 2, SOA: 6, TXT: 16, AAAA: 28 };

interface Query {
  name?: string;
  type?: number;
  v6?: boolean;
  /** Payload size of an OPT record; none when left out. */
  edns?: number;
  ednsVersion?: number;
  flags?: number;
  vlan?: boolean;
  /** Changes the DNS message before it is wrapped. */
  mangle?: (dns: number[]) => number[];
}

const u16 = (n: number): number[] => [(n >> 8) & 255, n & 255];
const wire = (name: string): number[] => [
  ...name.split(".").flatMap((label) => [label.length, ...Buffer.from(label)]),
  0,
];

function frame(query: Query): Uint8Array {
  const opt =
    query.edns === undefined ? [] : [0, 0, 41, ...u16(query.edns), 0, query.ednsVersion ?? 0, 0x80, 0, 0, 0];
  const message = [
    ...u16(0xbeef),
    ...u16(query.flags ?? 0x0100),
    ...[0, 1, 0, 0, 0, 0, 0, opt.length > 0 ? 1 : 0],
    ...wire(query.name ?? "www.bifurcate.test"),
    ...u16(query.type ?? TYPES.A),
    ...[0, 1],
    ...opt,
  ];
  const dns = query.mangle?.(message) ?? message;
  const udp = [...u16(40000), ...u16(53), ...u16(8 + dns.length), 0, 0, ...dns];
  const v6 = [
    0x60,
    0,
    0,
    0,
    ...u16(udp.length),
    17,
    60,
    ...new Array(15).fill(1),
    2,
    ...new Array(15).fill(1),
    3,
  ];
  const v4 = [0x45, 0, ...u16(20 + udp.length), 1, 2, 0x40, 0, 60, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1];
  return Uint8Array.from([
    ...[2, 0xbf, 0, 0, 0, 1, 2, 0xbf, 0, 0, 0, 2],
    ...(query.vlan === true ? [0x81, 0, 0, 42] : []),
    ...(query.v6 === true ? [0x86, 0xdd, ...v6] : [8, 0, ...v4]),
    ...udp,
  ]);
}

/** Runs the example on a frame in the middle of a pool. */
function ask(bytes: Uint8Array): { length: number; out: Buffer } {
  const pool = new Uint8Array(4096);
  pool.set(bytes, 1000);
  const length = answer(new DataView(pool.buffer), 1000, bytes.length);
  expect(pool.subarray(0, 1000).every((byte) => byte === 0)).toBe(true);
  return { length, out: Buffer.from(pool.subarray(1000, 1000 + length)) };
}

function onesComplement(bytes: Uint8Array, start = 0): number {
  let total = start;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >> 16);
  return total;
}

interface Reply {
  rcode: number;
  authoritative: boolean;
  truncated: boolean;
  answers: { type: number; data: string }[];
  authority: number[];
  edns: number | null;
}

/** Takes an answer's frame apart and checks everything that does not depend on the question. */
function check(query: Query, out: Buffer): Reply {
  const l2 = query.vlan === true ? 18 : 14;
  const ip = out.subarray(l2);
  const header = query.v6 === true ? 40 : 20;
  const udp = ip.subarray(header);
  expect([...out.subarray(0, 12)]).toEqual([2, 0xbf, 0, 0, 0, 2, 2, 0xbf, 0, 0, 0, 1]);
  expect(udp.readUInt16BE(0)).toBe(53);
  expect(udp.readUInt16BE(2)).toBe(40000);
  expect(udp.readUInt16BE(4)).toBe(udp.length);
  if (query.v6 === true) {
    expect(ip.readUInt16BE(4)).toBe(udp.length);
    expect([ip[23], ip[39]]).toEqual([3, 2]);
  } else {
    expect(ip.readUInt16BE(2)).toBe(ip.length);
    expect(onesComplement(ip.subarray(0, 20))).toBe(0xffff);
    expect([ip[15], ip[19]]).toEqual([1, 2]);
  }
  expect(udp.readUInt16BE(6)).not.toBe(0);
  const addresses = onesComplement(query.v6 === true ? ip.subarray(8, 40) : ip.subarray(12, 20));
  expect(onesComplement(udp, addresses + 17 + udp.length)).toBe(0xffff);

  const dns = udp.subarray(8);
  const flags = dns.readUInt16BE(2);
  expect(dns.readUInt16BE(0)).toBe(0xbeef);
  expect(flags & 0x8000).toBe(0x8000);
  let at = 12 + wire(query.name ?? "www.bifurcate.test").length + 4;
  let extended = 0;
  const reply: Reply = {
    rcode: 0,
    authoritative: (flags & 0x0400) !== 0,
    truncated: (flags & 0x0200) !== 0,
    answers: [],
    authority: [],
    edns: null,
  };
  const sections = [dns.readUInt16BE(6), dns.readUInt16BE(8), dns.readUInt16BE(10)];
  sections.forEach((count, section) => {
    for (let n = 0; n < count; n += 1) {
      at += dns[at]! >= 0xc0 ? 2 : 1;
      const type = dns.readUInt16BE(at);
      const length = dns.readUInt16BE(at + 8);
      if (section === 0)
        reply.answers.push({ type, data: dns.subarray(at + 10, at + 10 + length).toString("hex") });
      if (section === 1) reply.authority.push(type);
      if (section === 2) {
        reply.edns = dns.readUInt16BE(at + 2);
        extended = dns[at + 4]!;
      }
      at += 10 + length;
    }
  });
  expect(at).toBe(dns.length);
  reply.rcode = (extended << 4) | (flags & 15);
  return reply;
}

function reply(query: Query): Reply {
  const { length, out } = ask(frame(query));
  expect(length).toBeGreaterThan(0);
  return check(query, out);
}

describe("what it answers", () => {
  for (const v6 of [false, true]) {
    for (const vlan of [false, true]) {
      it(`A and AAAA over IPv${v6 ? 6 : 4}${vlan ? " in a VLAN" : ""}`, () => {
        expect(reply({ v6, vlan }).answers).toEqual([
          { type: 1, data: "c0000250" },
          { type: 1, data: "c0000251" },
        ]);
        expect(reply({ v6, vlan, type: TYPES.AAAA }).answers).toEqual([
          { type: 28, data: "20010db8000000000000000000000080" },
        ]);
      });
    }
  }

  it("the origin's SOA and NS", () => {
    expect(reply({ name: "bifurcate.test", type: TYPES.SOA }).answers.map((a) => a.type)).toEqual([6]);
    expect(reply({ name: "bifurcate.test", type: TYPES.NS }).answers.map((a) => a.type)).toEqual([2]);
  });

  it("a name in any case, the question given back as it came", () => {
    const { out } = ask(frame({ name: "wWw.BIFURCATE.Test" }));
    expect(check({ name: "wWw.BIFURCATE.Test" }, out).answers).toHaveLength(2);
    expect(out.includes("BIFURCATE")).toBe(true);
  });

  it("any name below a wildcard, and none beside it", () => {
    expect(reply({ name: "a.b.lookup.bifurcate.test" }).answers).toEqual([{ type: 1, data: "c0000264" }]);
    expect(reply({ name: "xlookup.bifurcate.test" }).rcode).toBe(3);
  });

  it("NXDOMAIN with the SOA for a name that is not there", () => {
    expect(reply({ name: "nothing.bifurcate.test" })).toMatchObject({
      rcode: 3,
      answers: [],
      authority: [6],
    });
  });

  it("no data with the SOA for a type that is not there, and for a name that only has names below it", () => {
    const none = { rcode: 0, answers: [], authority: [6], authoritative: true };
    expect(reply({ name: "v4only.bifurcate.test", type: TYPES.AAAA })).toMatchObject(none);
    expect(reply({ name: "lookup.bifurcate.test" })).toMatchObject(none);
  });

  it("REFUSED outside the zone, even where the text looks alike", () => {
    const refused = { rcode: 5, answers: [], authority: [], authoritative: false };
    expect(reply({ name: "example.com" })).toMatchObject(refused);
    expect(reply({ name: "notbifurcate.test" })).toMatchObject(refused);
    // The first label's text ends with what the origin's own first label looks like: its length, 9, and its text.
    expect(reply({ name: "not\tbifurcate.test" })).toMatchObject(refused);
  });

  it("EDNS when asked with it, and only then", () => {
    expect(reply({ edns: 4096 })).toMatchObject({ edns: 1232, rcode: 0 });
    expect(reply({}).edns).toBeNull();
    expect(reply({ edns: 4096, ednsVersion: 1 })).toMatchObject({ rcode: 16, answers: [], edns: 1232 });
  });

  it("NOTIMP to another opcode", () => {
    expect(reply({ flags: 0x2000 })).toMatchObject({ rcode: 4, answers: [] });
  });
});

describe("what it ignores", () => {
  const cases: Record<string, (dns: number[]) => number[]> = {
    "an answer": (dns) => dns.with(2, 0x80),
    "two questions": (dns) => dns.with(5, 2),
    "no question": (dns) => dns.with(5, 0),
    "answers in a query": (dns) => dns.with(7, 1),
    "a compressed question": (dns) => dns.with(12, 0xc0),
    "a label longer than the message": (dns) => dns.with(12, 63),
    "a header cut short": (dns) => dns.slice(0, 11),
    "a question cut short": (dns) => dns.slice(0, -1),
    "an additional record that is not there": (dns) => dns.with(11, 1),
  };
  for (const [what, mangle] of Object.entries(cases)) {
    it(what, () => expect(ask(frame({ mangle })).length).toBe(0));
  }

  it("a name longer than 255 bytes", () => {
    const label = "a".repeat(62);
    expect(ask(frame({ name: `${label}.${label}.${label}.${label}.bifurcate.test` })).length).toBe(0);
  });

  it("fragments, other protocols, other ports, multicast", () => {
    const bytes = frame({});
    expect(ask(bytes.with(20, 0x20)).length).toBe(0);
    expect(ask(bytes.with(23, 6)).length).toBe(0);
    expect(ask(bytes.with(37, 54)).length).toBe(0);
    expect(ask(bytes.with(0, 3)).length).toBe(0);
    expect(ask(bytes.with(26, 224)).length).toBe(0);
  });

  it("every frame cut short", () => {
    for (const v6 of [false, true]) {
      const bytes = frame({ v6, edns: 1232 });
      for (let length = 0; length < bytes.length; length += 1) {
        expect(ask(bytes.subarray(0, length)).length).toBe(0);
      }
    }
  });
});

it("whatever comes, it neither throws nor writes more than one frame", () => {
  const change = fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 4 });
  const anyQuery = fc.record({ v6: fc.boolean(), vlan: fc.boolean(), edns: fc.nat(65535) });
  fc.assert(
    fc.property(anyQuery, change, fc.nat(140), (query, changes, cut) => {
      let bytes = frame(query);
      for (const [at, byte] of changes) if (at < bytes.length) bytes = bytes.with(at, byte);
      const { length } = ask(cut < bytes.length && cut % 2 === 0 ? bytes.subarray(0, cut) : bytes);
      expect(length).toBeLessThanOrEqual(1514);
    }),
    { numRuns: 3000 },
  );
});
