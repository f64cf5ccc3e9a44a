// The hash against the vectors that Microsoft publishes for cards: "Verifying the RSS Hash Calculation".
import { describe, expect, it } from "vitest";
import { parsePacket } from "./packet/line.js";
import { flowOf, hashInput, RXH, toeplitz, usualFields } from "./toeplitz.js";

const KEY = Uint8Array.from(
  Buffer.from("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa", "hex"),
);
/** Source, destination, the hash over the addresses, and over addresses and ports. */
const VECTORS: [string, string, number, number][] = [
  ["66.9.149.187:2794", "161.142.100.80:1766", 0x323e8fc2, 0x51ccc178],
  ["199.92.111.2:14230", "65.69.140.83:4739", 0xd718262a, 0xc626b0ea],
  ["24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0a5de, 0x5c2b394a],
  ["38.27.205.30:48228", "209.142.163.6:2217", 0x82989176, 0xafc7327f],
  ["153.39.163.191:44251", "202.188.127.2:1303", 0x5d1809c5, 0x10e828a2],
  ["[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc18cd5, 0x40207d3d],
  ["[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c461c, 0xdde51bbf],
  ["[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x4b61e985, 0x02d1feef],
];
const ADDRESSES = RXH.sourceAddress | RXH.destinationAddress;

describe("the Toeplitz hash", () => {
  for (const [source, destination, two, four] of VECTORS) {
    it(`${source} > ${destination}`, () => {
      const packet = parsePacket(`tcp ${source} > ${destination}`);
      expect(toeplitz(KEY, hashInput(packet, ADDRESSES))).toBe(two);
      expect(toeplitz(KEY, hashInput(packet, usualFields("tcp4")))).toBe(four);
    });
  }

  it("leaves out what the card leaves out", () => {
    const packet = parsePacket("udp 66.9.149.187:2794 > 161.142.100.80:1766");
    expect([...hashInput(packet, RXH.destinationPort)]).toEqual([1766 >> 8, 1766 & 0xff]);
    expect(usualFields("udp4")).toBe(ADDRESSES);
    expect(flowOf(packet)).toBe("udp4");
    expect(flowOf(parsePacket("icmp 192.0.2.1 > 192.0.2.2"))).toBe("ip4");
    expect(flowOf(parsePacket("arp 192.0.2.1 > 192.0.2.2"))).toBeNull();
  });
});
