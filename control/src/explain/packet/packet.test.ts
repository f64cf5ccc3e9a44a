// Packets as lines, frames and files: what is read, what is refused, and at which character.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile } from "../../steering/rules/compile.js";
import { matches } from "../../steering/rules/interpret.js";
import { frameFromFile, isCaptureFile } from "./capture-file.js";
import { frameOf, packetOf } from "./frame.js";
import { parsePacket } from "./line.js";
import { addressOf, octetsOf } from "./packet.js";

const CARD = "02:00:00:00:00:01";

describe("a line", () => {
  const lines: [string, string][] = [
    ["udp 192.0.2.1:4242 > 192.0.2.2:53", "udp src port 4242 and dst port 53 and src host 192.0.2.1"],
    ["tcp 192.0.2.1:1>192.0.2.2:65535", "tcp dst port 65535 and tcp[tcpflags] & tcp-syn != 0"],
    ["udp [2001:db8::1]:4242 > [2001:db8::2]:53", "ip6 and udp dst port 53 and dst host 2001:db8::2"],
    ["icmp 192.0.2.1 > 192.0.2.2", "icmp[icmptype] == icmp-echo"],
    ["icmp6 2001:db8::1 > ff02::1", "icmp6 and dst host ff02::1"],
    ["sctp 192.0.2.1:7 > 192.0.2.2:8", "sctp dst port 8"],
    ["arp 192.0.2.1 > 192.0.2.2", "arp dst host 192.0.2.2 and ether broadcast"],
    ["ip 192.0.2.1 > 192.0.2.2 len 1514", "ip dst host 192.0.2.2 and len == 1514"],
    ["udp 192.0.2.1:1 > 192.0.2.2:53 vlan 7", "vlan 7 and udp dst port 53"],
    [`udp 192.0.2.1:1 > 192.0.2.2:53 to 02:00:00:00:00:09`, "ether dst 02:00:00:00:00:09"],
  ];
  for (const [line, expression] of lines) {
    it(`${line} makes a frame of '${expression}'`, () => {
      const packet = parsePacket(line);
      const frame = frameOf(packet, CARD);
      expect(matches(compile(expression).program, frame)).toBe(true);
      const { text, destinationMac, sourceMac, ...rest } = packetOf(frame);
      expect(rest).toEqual({
        ...rest,
        source: packet.source,
        destination: packet.destination,
        vlan: packet.vlan,
      });
      expect([rest.protocol, rest.sourcePort, rest.destinationPort, rest.length]).toEqual([
        packet.protocol,
        packet.sourcePort,
        packet.destinationPort,
        packet.length,
      ]);
      expect([text, sourceMac, destinationMac].every((each) => each !== null && each !== "")).toBe(true);
    });
  }

  const wrong: [string, number, RegExp][] = [
    ["", 0, /no packet/],
    ["dns 192.0.2.1:1 > 192.0.2.2:53", 0, /'dns' is none of udp/],
    ["udp 192.0.2.1:1 192.0.2.2:53", 16, /'>'/],
    ["udp 192.0.2.1:1 >", 17, /address is missing/],
    ["udp 192.0.2.999:1 > 192.0.2.2:53", 4, /192\.0\.2\.999' is no IP address/],
    ["udp 192.0.2.1 > 192.0.2.2:53", 13, /needs a port/],
    ["udp 192.0.2.1:1 > 192.0.2.2:77777", 28, /'77777' is no port/],
    ["udp 192.0.2.1:1 > 192.0.2.2:dns", 28, /'dns' is no port/],
    ["udp [2001:db8::x]:1 > [2001:db8::2]:53", 5, /no IP address/],
    ["udp 192.0.2.1:1 > [2001:db8::2]:53", 18, /different IP versions/],
    ["icmp 192.0.2.1:1 > 192.0.2.2", 5, /icmp has no ports/],
    ["icmp6 192.0.2.1 > 192.0.2.2", 18, /IPv6/],
    ["udp 192.0.2.1:1 > 192.0.2.2:53 vlan 5000", 36, /0 to 4094/],
    ["udp 192.0.2.1:1 > 192.0.2.2:53 len 20", 35, /42 bytes/],
    ["udp 192.0.2.1:1 > 192.0.2.2:53 to 02:00", 34, /six pairs/],
    ["udp 192.0.2.1:1 > 192.0.2.2:53 ttl 3", 31, /'ttl' is none of/],
  ];
  for (const [line, position, why] of wrong) {
    it(`'${line}' is refused at character ${position + 1}`, () => {
      try {
        parsePacket(line);
      } catch (thrown) {
        const error = thrown as BifurcateError;
        expect([error.code, error.data?.["position"]]).toEqual(["E_PACKET_SYNTAX", position]);
        expect(error.why).toMatch(why);
        expect(error.why.split("\n").at(-1)!.indexOf("^")).toBe(position + 2);
        return;
      }
      throw new Error("it was taken");
    });
  }
});

describe("addresses", () => {
  it("are read and written as people do", () => {
    for (const address of [
      "192.0.2.1",
      "2001:db8::1",
      "::",
      "::1",
      "fe80::",
      "2001:db8:1:2:3:4:5:6",
      "1:0:2::",
    ]) {
      expect(addressOf(octetsOf(address)!)).toBe(address);
    }
    expect(addressOf(octetsOf("::ffff:192.0.2.1")!)).toBe("::ffff:c000:201");
    for (const none of ["", "1.2.3", "1.2.3.4.5", ":::", "1::2::3", "12345::", "g::1", "1:2:3:4:5:6:7:8:9"]) {
      expect(octetsOf(none), none).toBeNull();
    }
  });

  it("of frames cut short end nowhere", () => {
    const frame = frameOf(parsePacket("udp [2001:db8::1]:1 > [2001:db8::2]:2 vlan 3"), CARD);
    for (let length = 0; length < frame.length; length++) packetOf(frame.subarray(0, length));
  });
});

describe("a capture file", () => {
  let folder = "";
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "bifurcate-capture-"))));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const frames = ["udp 192.0.2.1:1 > 192.0.2.2:53", "tcp 192.0.2.1:1 > 192.0.2.2:80 len 99"].map((line) =>
    frameOf(parsePacket(line), CARD),
  );
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const swapped = (bytes: Buffer): Buffer => Buffer.from(bytes).swap32();
  const pcap = (type = 1): Buffer =>
    Buffer.concat([
      ...[0xa1b2c3d4, 0x00040002, 0, 0, 65535, type].map(word),
      ...frames.flatMap((frame) => [
        word(1),
        word(2),
        word(frame.length),
        word(frame.length),
        Buffer.from(frame),
      ]),
    ]);
  const block = (kind: number, body: Buffer): Buffer => {
    const padded = Buffer.concat([body, Buffer.alloc(-body.length & 3)]);
    return Buffer.concat([word(kind), word(padded.length + 12), padded, word(padded.length + 12)]);
  };
  const pcapng = Buffer.concat([
    block(0x0a0d0d0a, Buffer.concat([word(0x1a2b3c4d), word(1), word(0xffffffff), word(0xffffffff)])),
    block(1, Buffer.concat([word(1), word(0)])),
    ...frames.map((frame) =>
      block(6, Buffer.concat([...[0, 0, 0, frame.length, frame.length].map(word), Buffer.from(frame)])),
    ),
  ]);
  const read = (bytes: Uint8Array, number: number): Uint8Array => {
    const file = join(folder, "capture");
    writeFileSync(file, bytes);
    return frameFromFile(file, number);
  };

  it("gives its packets by number, as pcap and pcapng", () => {
    for (const bytes of [pcap(), pcapng]) {
      expect(read(bytes, 1)).toEqual(frames[0]);
      expect(packetOf(read(bytes, 2)).text).toBe("tcp 192.0.2.1:1 > 192.0.2.2:80");
    }
  });

  it("of a machine of the other byte order too", () => {
    const header = swapped(pcap().subarray(0, 20));
    const record = swapped(
      Buffer.concat([word(1), word(2), word(frames[0]!.length), word(frames[0]!.length)]),
    );
    const bytes = Buffer.concat([header, swapped(word(1)), record, Buffer.from(frames[0]!)]);
    expect(read(bytes, 1)).toEqual(frames[0]);
  });

  it("that is none, or has no such packet, says why", () => {
    const refused = (run: () => unknown): string => {
      try {
        run();
      } catch (thrown) {
        expect((thrown as BifurcateError).code).toBe("E_PACKET_FILE");
        return (thrown as BifurcateError).why;
      }
      return "taken";
    };
    expect(refused(() => read(pcap(), 3))).toBe("it has 2 packets");
    expect(refused(() => read(Buffer.from("hello, this is not a capture file"), 1))).toMatch(/no pcap/);
    expect(refused(() => read(pcap(113), 1))).toMatch(/link type is 113/);
    expect(refused(() => frameFromFile(join(folder, "none"), 1))).toMatch(/ENOENT/);
    expect(refused(() => read(Buffer.alloc(0), 1))).toMatch(/no pcap/);
  });

  it("cut anywhere is refused, never believed", () => {
    for (const bytes of [pcap(), pcapng]) {
      for (let length = 0; length < bytes.length; length++) {
        expect(() => read(bytes.subarray(0, length), 2), `${length}`).toThrow(BifurcateError);
      }
    }
  });

  it("is told from a line by a slash or its ending", () => {
    expect(["a.pcap", "./x", "b.PCAPNG", "udp 1.2.3.4:5 > 6.7.8.9:10"].map(isCaptureFile)).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });
});
