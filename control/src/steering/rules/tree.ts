// The syntax tree of a filter expression: what was said, with every qualifier filled in and every name a number.

/** Where something stands in the source text: from `start` up to, but not including, `end` (UTF-16 units). */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** src, dst, either of them (pcap-filter's default), or both. */
export type Direction = "src" | "dst" | "either" | "both";

/** Protocols that a word of the language stands for. */
export type ProtocolWord =
  | "ip"
  | "ip6"
  | "arp"
  | "rarp"
  | "tcp"
  | "udp"
  | "sctp"
  | "icmp"
  | "icmp6"
  | "igmp"
  | "igrp"
  | "pim"
  | "vrrp"
  | "carp"
  | "ah"
  | "esp"
  | "atalk"
  | "aarp"
  | "decnet"
  | "lat"
  | "sca"
  | "moprc"
  | "mopdl"
  | "stp"
  | "ipx"
  | "netbeui"
  | "iso"
  | "clnp"
  | "esis"
  | "isis";

/** Protocols whose bytes `proto[offset:size]` can name. */
export type IndexedLayer =
  | "ether"
  | "ip"
  | "ip6"
  | "arp"
  | "rarp"
  | "atalk"
  | "decnet"
  | "lat"
  | "sca"
  | "moprc"
  | "mopdl"
  | "tcp"
  | "udp"
  | "sctp"
  | "icmp"
  | "igmp"
  | "igrp"
  | "pim"
  | "vrrp"
  | "carp"
  | "icmp6";

/** Operators of arithmetic; all are unsigned and of 32 bits. */
export type ArithmeticOperator = "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>";

/** Operators of comparison; all are unsigned. */
export type Comparison = "=" | "!=" | "<" | "<=" | ">" | ">=";

/** An arithmetic expression: a value of 32 bits computed from a packet. */
export type Arithmetic =
  | { readonly kind: "number"; readonly value: number; readonly span: Span }
  | { readonly kind: "length"; readonly span: Span }
  | {
      readonly kind: "load";
      readonly layer: IndexedLayer;
      readonly offset: Arithmetic;
      readonly size: 1 | 2 | 4;
      readonly span: Span;
    }
  | {
      readonly kind: "binary";
      readonly operator: ArithmeticOperator;
      readonly left: Arithmetic;
      readonly right: Arithmetic;
      readonly span: Span;
    }
  | { readonly kind: "negate"; readonly operand: Arithmetic; readonly span: Span };

/** One primitive: a test of a packet. */
export type Primitive =
  /** Every frame: the whole card. A word of ours; pcap-filter says it with an empty expression. */
  | { readonly kind: "all"; readonly span: Span }
  | { readonly kind: "protocol"; readonly protocol: ProtocolWord; readonly span: Span }
  /** `host` and `net` with an IPv4 address; "any" stands for IPv4, ARP and RARP. */
  | {
      readonly kind: "net4";
      readonly layer: "any" | "ip" | "arp" | "rarp";
      readonly direction: Direction;
      readonly address: number;
      readonly mask: number;
      readonly span: Span;
    }
  /** `host` and `net` with an IPv6 address, as four words of 32 bits. */
  | {
      readonly kind: "net6";
      readonly direction: Direction;
      readonly address: readonly number[];
      readonly mask: readonly number[];
      readonly span: Span;
    }
  | {
      readonly kind: "mac";
      readonly direction: Direction;
      readonly address: readonly number[];
      readonly span: Span;
    }
  /** `port` (first = last) and `portrange`. */
  | {
      readonly kind: "port";
      readonly transport: "any" | "tcp" | "udp" | "sctp";
      readonly direction: Direction;
      readonly first: number;
      readonly last: number;
      readonly span: Span;
    }
  /** `proto N`: "any" stands for IPv4 and IPv6. */
  | {
      readonly kind: "proto";
      readonly layer: "any" | "ip" | "ip6" | "ether" | "iso" | "isis";
      readonly number: number;
      readonly span: Span;
    }
  | { readonly kind: "broadcast"; readonly span: Span }
  | { readonly kind: "multicast"; readonly layer: "ether" | "ip" | "ip6"; readonly span: Span }
  | {
      readonly kind: "size";
      readonly comparison: "<=" | ">=";
      readonly value: number;
      readonly span: Span;
    }
  | {
      readonly kind: "byte";
      readonly offset: number;
      readonly comparison: "=" | "<" | ">";
      readonly value: number;
      readonly span: Span;
    }
  /** `id` null: any. It moves the offsets of everything that stands after it in the text by four bytes. */
  | { readonly kind: "vlan"; readonly id: number | null; readonly span: Span }
  /** As with vlan. */
  | { readonly kind: "mpls"; readonly label: number | null; readonly span: Span }
  | { readonly kind: "pppoed"; readonly span: Span }
  /** What stands after it in the text is looked for inside the PPP session. */
  | { readonly kind: "pppoes"; readonly session: number | null; readonly span: Span }
  /** `llc` alone (type null), or a frame type. */
  | { readonly kind: "llc"; readonly type: LlcType | null; readonly span: Span }
  | {
      readonly kind: "relation";
      readonly comparison: Comparison;
      readonly left: Arithmetic;
      readonly right: Arithmetic;
      readonly span: Span;
    };

/** Frame types of IEEE 802.2 that the language names. */
export type LlcType = "i" | "s" | "u" | "rr" | "rnr" | "rej" | LlcUnnumbered;
/** Unnumbered frames of IEEE 802.2. */
export type LlcUnnumbered = "ui" | "ua" | "disc" | "sabme" | "test" | "xid" | "frmr";

/** A filter expression. `and` and `or` bind equally and to the left, as pcap-filter(7) has it. */
export type Expression =
  | Primitive
  | { readonly kind: "and"; readonly left: Expression; readonly right: Expression; readonly span: Span }
  | { readonly kind: "or"; readonly left: Expression; readonly right: Expression; readonly span: Span }
  | { readonly kind: "not"; readonly operand: Expression; readonly span: Span };
