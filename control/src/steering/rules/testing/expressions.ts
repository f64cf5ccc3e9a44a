// Generated filter expressions, as text: all primitives, carried-over qualifiers, arithmetic.
import fc from "fast-check";
import { POOL } from "./packets.js";

const pick = <T>(...values: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
/** Parts joined by spaces; empty ones leave no trace. */
const words = (...parts: fc.Arbitrary<string>[]): fc.Arbitrary<string> =>
  fc.tuple(...parts).map((all) => all.filter((part) => part !== "").join(" "));
const is = (text: string): fc.Arbitrary<string> => fc.constant(text);

const direction = pick("", "", "src", "dst", "src or dst", "src and dst", "dst or src", "dst and src");
const port = fc.constantFrom(...POOL.port).map(String);
const range = fc.tuple(port, port).map(([a, b]) => `${a}-${b}`);
const ip4 = fc.constantFrom(...POOL.ip4);
const ip6 = fc.constantFrom(...POOL.ip6);
const mac = fc.constantFrom(...POOL.mac);

const joined = (one: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 6, arbitrary: one },
    fc.tuple(one, pick("or", "and", "||", "&&"), one).map(([a, word, b]) => `(${a} ${word} ${b})`),
    one.map((text) => `not ${text}`),
    one.map((text) => `(${text})`),
    fc.tuple(one, pick("or not", "and not"), one).map(([a, word, b]) => `(${a} ${word} ${b})`),
  );

const hosts = fc.oneof(
  words(pick("", "ip", "arp", "rarp"), direction, is("host"), joined(ip4)),
  words(pick("", "ip6"), direction, is("host"), joined(ip6)),
  words(
    pick("", "ip", "arp"),
    direction,
    is("net"),
    pick(
      "10",
      "10.1",
      "192.168.1",
      "10.0.0.0/8",
      "10.0.0.0/30",
      "0.0.0.0/0",
      "224.0.0.0 mask 240.0.0.0",
      "10.0.0.0/31",
    ),
  ),
  words(
    pick("", "ip6"),
    direction,
    is("net"),
    pick("fe80::/10", "2001:db8::/32", "::/0", "::1/128", "2001:db8::/47", "ff00::/8"),
  ),
  words(is("ether"), direction, pick("host", "host", ""), joined(mac)).filter(
    (text) => !/^ether (not |\(|\d|f)/.test(text),
  ),
  words(pick("src", "dst"), ip4),
);

const ports = fc.oneof(
  words(pick("", "tcp", "udp", "sctp"), direction, is("port"), joined(port)),
  words(pick("", "tcp", "udp", "sctp"), direction, is("portrange"), range),
  words(pick("", "udp"), direction, is("portrange"), port),
);

const protocols = fc.oneof(
  pick(
    ...[
      "ip",
      "ip6",
      "arp",
      "rarp",
      "tcp",
      "udp",
      "sctp",
      "icmp",
      "icmp6",
      "igmp",
      "igrp",
      "pim",
      "vrrp",
      "carp",
    ],
    ...[
      "ah",
      "esp",
      "atalk",
      "aarp",
      "decnet",
      "lat",
      "sca",
      "moprc",
      "mopdl",
      "stp",
      "ipx",
      "netbeui",
      "iso",
    ],
    ...["clnp", "esis", "isis", "l1", "l2", "iih", "lsp", "snp", "csnp", "psnp", "pppoed"],
    ...["llc", "llc i", "llc s", "llc u", "llc rr", "llc ui", "llc xid", "llc rnr"],
    ...["broadcast", "ether broadcast", "multicast", "ether multicast", "ip multicast", "ip6 multicast"],
  ),
  words(
    pick("", "ip", "ip6"),
    is("proto"),
    pick("6", "17", "132", "1", "58", "0", "44", "300", "\\tcp", "\\udp"),
  ),
  words(
    is("ether proto"),
    pick(
      "0x800",
      "0x86dd",
      "0x42",
      "0xfe",
      "0xf0",
      "0xe0",
      "0x8100",
      "1500",
      "1501",
      "6",
      "0x80f3",
      "\\arp",
      "\\ip",
      "\\ipx",
      "\\loopback",
    ),
  ),
  words(pick("iso", "isis"), is("proto"), pick("0x83", "15", "0x82")),
  words(pick("less", "greater"), pick("0", "14", "60", "61", "100")),
  words(is("byte"), pick("0", "12", "14", "23"), pick("=", "<", ">"), pick("0", "8", "69", "255")),
);

const layers = fc.oneof(
  { weight: 4, arbitrary: words(is("vlan"), pick("", "", ...POOL.vlan.map(String), "(5)")) },
  words(is("mpls"), pick("", ...POOL.label.map(String))),
  words(is("pppoes"), pick("", ...POOL.session.map(String))),
);

const constant = pick(
  "0",
  "1",
  "2",
  "5",
  "13",
  "14",
  "20",
  "0x0f",
  "0xff",
  "0xffff",
  "255",
  "65535",
  "4294967295",
  "tcpflags",
  "tcp-syn",
  "icmptype",
  "icmp-echo",
);
const indexed = pick(
  "ether",
  "link",
  "ip",
  "ip6",
  "arp",
  "tcp",
  "udp",
  "sctp",
  "icmp",
  "icmp6",
  "igmp",
  "atalk",
  "vrrp",
  "pim",
);

const { arithmetic } = fc.letrec<{ arithmetic: string; load: string }>((tie) => ({
  arithmetic: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    constant,
    is("len"),
    tie("load"),
    fc
      .tuple(tie("arithmetic"), pick("+", "-", "*", "&", "|", "^", "%", "/", "<<", ">>"), tie("arithmetic"))
      .map(([a, operator, b]) => `${a} ${operator} ${b}`),
    tie("arithmetic").map((inner) => `(${inner})`),
    tie("arithmetic").map((inner) => `- ${inner}`),
  ),
  load: fc.oneof(
    {
      weight: 3,
      arbitrary: fc
        .tuple(indexed, constant, pick("", ":1", ":2", ":4"))
        .map(([layer, at, size]) => `${layer}[${at}${size}]`),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(indexed, tie("arithmetic"), pick("", ":2", ":4"))
        .map(([layer, at, size]) => `${layer}[${at}${size}]`),
    },
  ),
}));

const relations = fc.oneof(
  words(arithmetic, pick("=", "==", "!=", "<", "<=", ">", ">="), arithmetic),
  pick(
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff = 0",
    "tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
    "ether[0] & 1 = 0 and ip[16] >= 224",
    "ether[ether[0]] = 2",
    "udp[ip[0] & 0xf:2] > 20",
  ),
);

const primitive = fc.oneof(
  { weight: 4, arbitrary: hosts },
  { weight: 4, arbitrary: ports },
  { weight: 3, arbitrary: protocols },
  { weight: 2, arbitrary: layers },
  { weight: 3, arbitrary: relations },
);

/** A bare address or number after a qualified one: "port 53 or 54". */
const inherited = fc.oneof(
  fc
    .tuple(pick("port", "udp port", "tcp src port"), port, pick("or", "and"), joined(port))
    .map((all) => all.join(" ")),
  fc
    .tuple(pick("host", "src host", "ip host"), ip4, pick("or", "and", "and not"), joined(ip4))
    .map((all) => all.join(" ")),
  fc
    .tuple(
      pick("udp port", "tcp port"),
      port,
      is("or"),
      fc.tuple(pick("tcp port 22", "vlan and ip", "arp")).map(([x]) => `(${x})`),
      is("or"),
      port,
    )
    .map((all) => all.join(" ")),
);

/** A whole expression, nearly always valid. */
export const expression: fc.Arbitrary<string> = fc.letrec<{ all: string }>((tie) => ({
  all: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    primitive,
    inherited,
    fc.tuple(tie("all"), pick("and", "or", "&&", "||"), primitive).map((parts) => parts.join(" ")),
    fc.tuple(tie("all"), pick("and", "or"), tie("all")).map((parts) => parts.join(" ")),
    fc.tuple(pick("not", "!"), primitive).map((parts) => parts.join(" ")),
    tie("all").map((inner) => `(${inner})`),
    tie("all").map((inner) => `not (${inner})`),
  ),
})).all;

/** Any words in any order: mostly not valid. */
export const wordSalad: fc.Arbitrary<string> = fc
  .array(
    pick(
      ...[
        "(",
        ")",
        "and",
        "or",
        "not",
        "port",
        "host",
        "net",
        "src",
        "dst",
        "tcp",
        "udp",
        "ip",
        "ip6",
        "ether",
        "proto",
      ],
      ...[
        "53",
        "80",
        "10.0.0.1",
        "::1",
        "02:00:00:00:00:01",
        "vlan",
        "5",
        "len",
        ">",
        "=",
        "+",
        "-",
        "&",
        "[",
        "]",
        ":",
      ],
      ...[
        "0",
        "4",
        "portrange",
        "1-2",
        "multicast",
        "broadcast",
        "less",
        "mpls",
        "%",
        "/",
        "mask",
        "255.0.0.0",
        "10",
        "llc",
      ],
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((parts) => parts.join(" "));
