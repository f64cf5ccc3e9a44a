// Flow rules of RDMA cards: their bytes are those of infiniband/verbs.h, field by field.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { FlowRule } from "./flow-spec.js";
import { encodeVerbsRule, everyFrame } from "./verbs-flow.js";
import { verbsRules } from "../verbs-flows.js";

const ALL_ONES = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff];

/** Rules, and the same in C: `e` is the Ethernet specification, `i` IPv4, `j` IPv6, `t` TCP or UDP. */
const RULES: readonly {
  readonly name: string;
  readonly rule: FlowRule;
  readonly c: string;
  readonly specs: string;
}[] = [
  {
    name: "UDP over IPv4 with masks",
    rule: {
      type: "udp4",
      source: { value: [0x0a000001], mask: [0xffffff00] },
      destination: { value: [0xc0a80101], mask: [0xffffffff] },
      sourcePort: { value: 1024, mask: 0xfc00 },
      destinationPort: { value: 53, mask: 0xffff },
    },
    c: `e.val.ether_type = htons(0x0800); e.mask.ether_type = 0xffff;
      i.val.src_ip = htonl(0x0a000001); i.mask.src_ip = htonl(0xffffff00);
      i.val.dst_ip = htonl(0xc0a80101); i.mask.dst_ip = htonl(0xffffffff);
      i.val.proto = 17; i.mask.proto = 0xff;
      t.type = IBV_FLOW_SPEC_UDP;
      t.val.src_port = htons(1024); t.mask.src_port = htons(0xfc00);
      t.val.dst_port = htons(53); t.mask.dst_port = htons(0xffff);`,
    specs: "eit",
  },
  {
    name: "TCP over IPv6 behind a tag",
    rule: {
      type: "tcp6",
      destination: { value: [0x20010db8, 0, 0, 1], mask: ALL_ONES },
      destinationPort: { value: 443, mask: 0xffff },
      vlanId: { value: 5, mask: 0xfff },
    },
    c: `e.val.ether_type = htons(0x86dd); e.mask.ether_type = 0xffff;
      e.val.vlan_tag = htons(5); e.mask.vlan_tag = htons(0xfff);
      memcpy(j.val.dst_ip, "\\x20\\x01\\x0d\\xb8\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\1", 16); memset(j.mask.dst_ip, 0xff, 16);
      j.val.next_hdr = 6; j.mask.next_hdr = 0xff;
      t.type = IBV_FLOW_SPEC_TCP;
      t.val.dst_port = htons(443); t.mask.dst_port = htons(0xffff);`,
    specs: "ejt",
  },
  {
    name: "SCTP, whose ports have no specification",
    rule: { type: "sctp4", sourcePort: { value: 7, mask: 0xffff } },
    c: `e.val.ether_type = htons(0x0800); e.mask.ether_type = 0xffff; i.val.proto = 132; i.mask.proto = 0xff;`,
    specs: "ei",
  },
  {
    name: "a protocol of IPv6 from a network",
    rule: {
      type: "ip6",
      source: { value: [0xfe800000, 0, 0, 0], mask: [0xffc00000, 0, 0, 0] },
      protocol: 58,
    },
    c: `e.val.ether_type = htons(0x86dd); e.mask.ether_type = 0xffff;
      j.val.src_ip[0] = 0xfe; j.val.src_ip[1] = 0x80; j.mask.src_ip[0] = 0xff; j.mask.src_ip[1] = 0xc0;
      j.val.next_hdr = 58; j.mask.next_hdr = 0xff;`,
    specs: "ej",
  },
  {
    name: "Ethernet addresses and type",
    rule: {
      type: "ether",
      destinationMac: { value: [2, 0, 0, 0, 0, 1], mask: [255, 255, 255, 255, 255, 255] },
      sourceMac: { value: [1, 0, 0, 0, 0, 0], mask: [1, 0, 0, 0, 0, 0] },
      etherType: 0x88cc,
    },
    c: `memcpy(e.val.dst_mac, "\\2\\0\\0\\0\\0\\1", 6); memset(e.mask.dst_mac, 0xff, 6);
      e.val.src_mac[0] = 1; e.mask.src_mac[0] = 1;
      e.val.ether_type = htons(0x88cc); e.mask.ether_type = 0xffff;`,
    specs: "e",
  },
];

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** A program that prints each rule as the header's structs have it. */
function program(): string {
  const cases = RULES.map(
    ({ c, specs }) => `{
      struct ibv_flow_attr a; struct ibv_flow_spec_eth e; struct ibv_flow_spec_ipv4_ext i; struct ibv_flow_spec_ipv6 j;
      struct ibv_flow_spec_tcp_udp t;
      memset(&a, 0, sizeof a); memset(&e, 0, sizeof e); memset(&i, 0, sizeof i); memset(&j, 0, sizeof j); memset(&t, 0, sizeof t);
      e.type = IBV_FLOW_SPEC_ETH; e.size = sizeof e; i.type = IBV_FLOW_SPEC_IPV4_EXT; i.size = sizeof i;
      j.type = IBV_FLOW_SPEC_IPV6; j.size = sizeof j; t.size = sizeof t;
      ${c}
      a.type = IBV_FLOW_ATTR_NORMAL; a.num_of_specs = ${specs.length};
      a.size = sizeof a + ${[...specs].map((spec) => `sizeof ${spec}`).join(" + ")};
      dump(&a, sizeof a); ${[...specs].map((spec) => `dump(&${spec}, sizeof ${spec});`).join(" ")} printf("\\n"); }`,
  );
  const all = `{ struct ibv_flow_attr a; memset(&a, 0, sizeof a); a.type = IBV_FLOW_ATTR_ALL_DEFAULT; a.size = sizeof a;
    dump(&a, sizeof a); printf("\\n"); }`;
  return `#include <stdio.h>
    #include <string.h>
    #include <arpa/inet.h>
    #include <infiniband/verbs.h>
    static void dump(void *at, size_t size) { for (size_t i = 0; i < size; i++) printf("%02x", ((unsigned char *)at)[i]); }
    int main(void) { ${cases.join("\n")} ${all} return 0; }\n`;
}

const missing = !existsSync("/usr/include/infiniband/verbs.h")
  ? "infiniband/verbs.h is not installed (libibverbs-dev)"
  : spawnSync("cc", ["--version"]).error !== undefined
    ? "no C compiler"
    : null;

describe("struct ibv_flow_attr and its specifications", () => {
  it("have bytes worked out by hand", () => {
    const bytes = encodeVerbsRule({ type: "udp4", destinationPort: { value: 53, mask: 0xffff } })!;
    const expected = new Uint8Array(20 + 40 + 32 + 16);
    expected[8] = expected.length;
    expected[12] = 3;
    expected.set([0x20, 0, 0, 0, 40], 20);
    expected.set([0x08, 0x00], 20 + 6 + 12);
    expected.set([0xff, 0xff], 20 + 22 + 12);
    expected.set([0x32, 0, 0, 0, 32], 60);
    expected[60 + 8 + 8] = 17;
    expected[60 + 20 + 8] = 0xff;
    expected.set([0x41, 0, 0, 0, 16], 92);
    expected.set([0, 53], 92 + 6);
    expected.set([0xff, 0xff], 92 + 10);
    expect(hex(bytes)).toBe(hex(expected));
  });

  it.skipIf(missing !== null)(
    `equal what the header's own structs give${missing === null ? "" : ` (${missing})`}`,
    () => {
      const directory = mkdtempSync(join(tmpdir(), "bifurcate-verbs-"));
      try {
        const [source, built] = [join(directory, "rules.c"), join(directory, "rules")];
        writeFileSync(source, program());
        const compiled = spawnSync("cc", ["-o", built, source], { encoding: "utf8" });
        expect(compiled.stderr).toBe("");
        const lines = spawnSync(built, { encoding: "utf8" }).stdout.trim().split("\n");
        const ours = RULES.map(({ rule }) => hex(encodeVerbsRule(rule)!));
        expect([...ours, hex(everyFrame())]).toEqual(lines);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );

  it("say nothing where nothing would be left to say", () => {
    expect(encodeVerbsRule({ type: "ether", vlanType: 0x8100 })).toBeNull();
  });
});

describe("flows as rules of an RDMA card", () => {
  it("are one rule for each version of IP, and one for every frame", () => {
    expect(verbsRules("open", ["udp dst port 53"]).map((rule) => rule.length)).toEqual([164, 108]);
    expect(verbsRules("open", ["all"])).toEqual([everyFrame()]);
    expect(verbsRules("open", ["udp dst port 53", "ip proto 47"])).toHaveLength(3);
  });

  it.each([
    ["len > 100", "E_FLOW_NO_RULE"],
    ["vlan", "E_FLOW_NO_RULE"],
    ["udp prot 53", "E_FLOW_SYNTAX"],
  ])("refuses %s", (flow, code) => {
    expect(() => verbsRules("open", [flow])).toThrow(expect.objectContaining({ code }));
  });
});
