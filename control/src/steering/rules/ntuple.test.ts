// Ntuple rules let through everything that the expression matches, and their bytes are the kernel's.
import fc from "fast-check";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile, type Filter } from "./compile.js";
import { encodeRule, type FlowRule } from "./flow-spec.js";
import { matches } from "./interpret.js";
import { ruleMatches } from "./ntuple-model.js";
import { coverRange, sieve } from "./ntuple.js";
import { parse } from "./parser.js";
import { expression } from "./testing/expressions.js";
import { frame } from "./testing/packets.js";

function rulesOf(source: string): readonly FlowRule[] {
  const result = sieve(parse(source));
  if (result.kind !== "rules") throw new Error(result.reason);
  return result.rules;
}

function compileOrNull(source: string): Filter | null {
  try {
    return compile(source);
  } catch (error) {
    if (error instanceof BifurcateError) return null;
    throw error;
  }
}

describe("sieve", () => {
  it("needs one rule for each version of IP", () => {
    const destinationPort = { value: 53, mask: 0xffff };
    expect(rulesOf("udp dst port 53")).toEqual([
      { type: "udp6", destinationPort },
      { type: "udp4", destinationPort },
    ]);
  });

  it("uses the tag of a VLAN, and of a second one nothing", () => {
    expect(rulesOf("vlan 5 and udp dst port 53")).toContainEqual({
      type: "udp4",
      destinationPort: { value: 53, mask: 0xffff },
      vlanId: { value: 5, mask: 0xfff },
    });
    expect(rulesOf("vlan 5 and vlan 6 and tcp")).toEqual([
      { type: "ether", vlanId: { value: 5, mask: 0xfff } },
    ]);
  });

  it("does not look for a transport where fragments belong to the flow", () => {
    expect(rulesOf("ip and udp and src host 10.0.0.1")).toEqual([
      { type: "ip4", source: { value: [0x0a000001], mask: [0xffffffff] }, protocol: 17 },
    ]);
  });

  it.each([
    ["not udp", "a rule for it would match every frame"],
    ["len > 100", "a rule for it would match every frame"],
    ["udp port 53 or stp", "a rule for it would match every frame"],
    ["all", "the whole card needs no rule"],
  ])("says that %j cannot be lowered", (source, reason) => {
    expect(sieve(parse(source))).toEqual({ kind: "none", reason });
  });

  it("matches at least what the expression matches", () => {
    let [checked, steered, lowered] = [0, 0, 0];
    fc.assert(
      fc.property(expression, fc.array(frame, { minLength: 8, maxLength: 16 }), (source, frames) => {
        const filter = compileOrNull(source);
        if (filter === null) return;
        const result = sieve(filter.tree);
        if (result.kind === "none") return;
        lowered++;
        const rules = result.rules.map((rule, index) => encodeRule(rule, 3, index));
        for (const bytes of frames) {
          const through = rules.some((rule) => ruleMatches(rule.bytes, bytes));
          checked++;
          if (through) steered++;
          if (bytes.length < 14 || !matches(filter.program, bytes)) continue;
          const what = `'${source}' on ${Buffer.from(bytes).toString("hex")}`;
          expect(through, what).toBe(true);
        }
      }),
      { numRuns: Number(process.env["RUNS"] ?? 3000) },
    );
    expect(lowered).toBeGreaterThan(500);
    // A sieve that lets everything through would pass too.
    expect(steered).toBeLessThan(checked / 2);
  });

  it("covers a range of ports exactly, with masks", () => {
    fc.assert(
      fc.property(fc.nat(65535), fc.nat(65535), fc.nat(65535), (a, b, port) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)];
        const masks = coverRange(first, last);
        for (const value of [port, first, last, first - 1, last + 1]) {
          if (value < 0 || value > 65535) continue;
          const inside = masks.some((mask) => (value & mask.mask) === mask.value);
          expect(inside).toBe(value >= first && value <= last);
        }
      }),
    );
  });
});

const RULES: readonly { readonly rule: FlowRule; readonly c: string }[] = [
  {
    rule: {
      type: "udp4",
      source: { value: [0x0a000001], mask: [0xffffff00] },
      destination: { value: [0xc0a80101], mask: [0xffffffff] },
      sourcePort: { value: 1024, mask: 0xfc00 },
      destinationPort: { value: 53, mask: 0xffff },
    },
    c: `s.flow_type = UDP_V4_FLOW;
      s.h_u.udp_ip4_spec.ip4src = htonl(0x0a000001); s.m_u.udp_ip4_spec.ip4src = htonl(0xffffff00);
      s.h_u.udp_ip4_spec.ip4dst = htonl(0xc0a80101); s.m_u.udp_ip4_spec.ip4dst = htonl(0xffffffff);
      s.h_u.udp_ip4_spec.psrc = htons(1024); s.m_u.udp_ip4_spec.psrc = htons(0xfc00);
      s.h_u.udp_ip4_spec.pdst = htons(53); s.m_u.udp_ip4_spec.pdst = htons(0xffff);`,
  },
  {
    rule: {
      type: "tcp6",
      destination: { value: [0x20010db8, 0, 0, 1], mask: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff] },
      destinationPort: { value: 443, mask: 0xffff },
      vlanId: { value: 5, mask: 0xfff },
    },
    c: `s.flow_type = TCP_V6_FLOW | FLOW_EXT;
      s.h_u.tcp_ip6_spec.ip6dst[0] = htonl(0x20010db8); s.h_u.tcp_ip6_spec.ip6dst[3] = htonl(1);
      memset(s.m_u.tcp_ip6_spec.ip6dst, 0xff, 16);
      s.h_u.tcp_ip6_spec.pdst = htons(443); s.m_u.tcp_ip6_spec.pdst = htons(0xffff);
      s.h_ext.vlan_tci = htons(5); s.m_ext.vlan_tci = htons(0xfff);`,
  },
  {
    rule: { type: "sctp4", sourcePort: { value: 7, mask: 0xffff } },
    c: `s.flow_type = SCTP_V4_FLOW;
      s.h_u.sctp_ip4_spec.psrc = htons(7); s.m_u.sctp_ip4_spec.psrc = htons(0xffff);`,
  },
  {
    rule: { type: "ip4", source: { value: [0x0a000001], mask: [0xffffffff] }, protocol: 17 },
    c: `s.flow_type = IPV4_USER_FLOW;
      s.h_u.usr_ip4_spec.ip4src = htonl(0x0a000001); s.m_u.usr_ip4_spec.ip4src = htonl(0xffffffff);
      s.h_u.usr_ip4_spec.ip_ver = ETH_RX_NFC_IP4;
      s.h_u.usr_ip4_spec.proto = 17; s.m_u.usr_ip4_spec.proto = 0xff;`,
  },
  {
    rule: {
      type: "ip6",
      source: { value: [0xfe800000, 0, 0, 0], mask: [0xffc00000, 0, 0, 0] },
      protocol: 58,
    },
    c: `s.flow_type = IPV6_USER_FLOW;
      s.h_u.usr_ip6_spec.ip6src[0] = htonl(0xfe800000); s.m_u.usr_ip6_spec.ip6src[0] = htonl(0xffc00000);
      s.h_u.usr_ip6_spec.l4_proto = 58; s.m_u.usr_ip6_spec.l4_proto = 0xff;`,
  },
  {
    rule: {
      type: "ether",
      destinationMac: { value: [2, 0, 0, 0, 0, 1], mask: [255, 255, 255, 255, 255, 255] },
      sourceMac: { value: [1, 0, 0, 0, 0, 0], mask: [1, 0, 0, 0, 0, 0] },
      etherType: 0x88cc,
      vlanType: 0x88a8,
    },
    c: `s.flow_type = ETHER_FLOW | FLOW_EXT;
      memcpy(s.h_u.ether_spec.h_dest, "\\2\\0\\0\\0\\0\\1", 6); memset(s.m_u.ether_spec.h_dest, 0xff, 6);
      s.h_u.ether_spec.h_source[0] = 1; s.m_u.ether_spec.h_source[0] = 1;
      s.h_u.ether_spec.h_proto = htons(0x88cc); s.m_u.ether_spec.h_proto = htons(0xffff);
      s.h_ext.vlan_etype = htons(0x88a8); s.m_ext.vlan_etype = htons(0xffff);`,
  },
];

const compiler = spawnSync("cc", ["--version"]);
const noCompiler = compiler.error === undefined ? null : `no C compiler: ${compiler.error.message}`;

describe("struct ethtool_rx_flow_spec", () => {
  it("has bytes worked out by hand", () => {
    const { bytes, location } = encodeRule(
      { type: "udp4", destinationPort: { value: 53, mask: 0xffff } },
      3,
      1022,
    );
    const expected = new Uint8Array(168);
    expected[0] = 0x02; // UDP_V4_FLOW
    expected.set([0x00, 0x35], 4 + 10); // h_u.udp_ip4_spec.pdst
    expected.set([0xff, 0xff], 76 + 10); // m_u.udp_ip4_spec.pdst
    expected[152] = 3; // ring_cookie
    expected.set([0xfe, 0x03], 160); // location
    expect(bytes).toEqual(expected);
    expect(location).toBe(1022);
  });

  it.skipIf(noCompiler !== null)(
    `equals what the header's own struct gives${noCompiler === null ? "" : ` (${noCompiler})`}`,
    () => {
      const directory = mkdtempSync(join(tmpdir(), "bifurcate-ethtool-"));
      try {
        const cases = RULES.map(
          ({
            c,
          }) => `{ struct ethtool_rx_flow_spec s; memset(&s, 0, sizeof s); ${c} s.ring_cookie = 3; s.location = 1022;
          for (unsigned i = 0; i < sizeof s; i++) printf("%02x", ((unsigned char *)&s)[i]); printf("\\n"); }`,
        );
        const source = join(directory, "rules.c");
        const program = join(directory, "rules");
        writeFileSync(
          source,
          `#include <stdio.h>\n#include <string.h>\n#include <arpa/inet.h>\n#include <linux/ethtool.h>\nint main(void) { ${cases.join("\n")} return 0; }\n`,
        );
        const built = spawnSync("cc", ["-o", program, source], { encoding: "utf8" });
        expect(built.stderr).toBe("");
        const lines = spawnSync(program, { encoding: "utf8" }).stdout.trim().split("\n");
        const ours = RULES.map(({ rule }) => Buffer.from(encodeRule(rule, 3, 1022).bytes).toString("hex"));
        expect(ours).toEqual(lines);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
});
