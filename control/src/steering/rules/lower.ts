// Syntax tree to tests, in the order in which libpcap evaluates them.
import { and, compare, equal, loadIndexed, not, or, TRUE, type Block } from "./blocks.js";
import { lowerRelation } from "./arithmetic.js";
import { Layers } from "./layers.js";
import { OP } from "./program.js";
import type { Direction, Expression, Primitive, ProtocolWord, Span } from "./tree.js";
import { ETHER_PROTOCOLS, IP_WORDS, ISO_PROTOCOLS, LLC_TYPES } from "./words.js";

const IP = ETHER_PROTOCOLS["ip"]!;
const IP6 = ETHER_PROTOCOLS["ip6"]!;
const ISO = ETHER_PROTOCOLS["iso"]!;
/** IPv6 fragment header (RFC 8200 section 4.5). */
const IP6_FRAGMENT = 44;
const TRANSPORTS = { tcp: 6, udp: 17, sctp: 132 } as const;

/** Turns an expression into tests; `source` is its text, for errors. */
export function lower(tree: Expression, source: string): Block {
  return new Lowering(source).expression(tree);
}

/** Shared with arithmetic.ts: where headers are, and tests for protocols. */
export class Lowering {
  readonly layers: Layers;

  constructor(readonly source: string) {
    this.layers = new Layers(source);
  }

  /** Left before right: vlan and its like act on all that follows in the text, whatever joins them. */
  expression(tree: Expression): Block {
    switch (tree.kind) {
      case "and":
      case "or": {
        const left = this.expression(tree.left);
        return { kind: tree.kind, left, right: this.expression(tree.right) };
      }
      case "not":
        return not(this.expression(tree.operand));
      default:
        return this.#primitive(tree);
    }
  }

  #primitive(node: Primitive): Block {
    const { layers } = this;
    switch (node.kind) {
      case "all":
        return TRUE;
      case "protocol":
        return this.protocol(node.protocol, node.span);
      case "net4":
        return this.#net4(node);
      case "net6":
        return this.#net6(node);
      case "mac":
        layers.needEthernet(node.span, "an Ethernet address");
        return directed(node.direction, (source) => mac(layers.link + (source ? 6 : 0), node.address));
      case "port":
        return this.#port(node);
      case "proto":
        return this.#proto(node.layer, node.number, node.span);
      case "broadcast":
        layers.needEthernet(node.span, "'broadcast'");
        return mac(layers.link, [255, 255, 255, 255, 255, 255]);
      case "multicast":
        return this.#multicast(node.layer, node.span);
      case "size": {
        const jump = node.comparison === "<=" ? "JGT" : "JGE";
        const test: Block = { kind: "test", statements: [{ code: OP.LD_LEN, k: 0 }], jump, k: node.value };
        return node.comparison === "<=" ? not(test) : test;
      }
      case "byte": {
        const at = layers.link + node.offset;
        if (node.comparison === "=") return equal(at, 1, node.value);
        if (node.comparison === ">") return compare(at, 1, "JGT", node.value);
        return not(compare(at, 1, "JGE", node.value));
      }
      case "vlan":
        return layers.enterVlan(node.id, node.span);
      case "mpls":
        return layers.enterMpls(node.label, node.span);
      case "pppoed":
        return layers.carries(0x8863, node.span);
      case "pppoes":
        return layers.enterPppoe(node.session, node.span);
      case "llc":
        return this.#llc(node);
      case "relation":
        return lowerRelation(node, this);
    }
  }

  /** The test that a protocol word stands for. */
  protocol(word: ProtocolWord, span: Span): Block {
    const transport = IP_WORDS[word];
    if (transport !== undefined) return this.#proto(transport.over, transport.number, span);
    if (word === "clnp" || word === "esis" || word === "isis") {
      return this.#proto("iso", ISO_PROTOCOLS[word]!, span);
    }
    return this.layers.carries(ETHER_PROTOCOLS[word]!, span);
  }

  /** IPv4, and not a fragment other than the first: only then is there a transport header. */
  unfragmented(): Block {
    return not(compare(this.layers.network + 6, 2, "JSET", 0x1fff));
  }

  #proto(layer: "any" | "ip" | "ip6" | "ether" | "iso" | "isis", number: number, span: Span): Block {
    const { layers } = this;
    switch (layer) {
      case "any":
        return or(this.#proto("ip", number, span), this.#proto("ip6", number, span));
      case "ether":
        return layers.carries(number, span);
      case "ip":
        return and(layers.carries(IP, span), equal(layers.network + 9, 1, number));
      case "ip6": {
        const next = layers.network + 6;
        const fragment = and(equal(next, 1, IP6_FRAGMENT), equal(layers.network + 40, 1, number));
        return and(layers.carries(IP6, span), or(equal(next, 1, number), fragment));
      }
      case "iso":
        return and(layers.carries(ISO, span), equal(layers.osi, 1, number));
      case "isis":
        return and(this.#proto("iso", ISO_PROTOCOLS["isis"]!, span), equal(layers.osi + 4, 1, number));
    }
  }

  #net4(node: Extract<Primitive, { kind: "net4" }>): Block {
    const { layers } = this;
    const over = (protocol: number, source: number, destination: number): Block =>
      directed(node.direction, (isSource) => {
        const at = layers.network + (isSource ? source : destination);
        return and(layers.carries(protocol, node.span), equal(at, 4, node.address, node.mask));
      });
    const ip = (): Block => over(IP, 12, 16);
    // RFC 826: sender and target protocol address.
    const arp = (): Block => over(ETHER_PROTOCOLS["arp"]!, 14, 24);
    const rarp = (): Block => over(ETHER_PROTOCOLS["rarp"]!, 14, 24);
    switch (node.layer) {
      case "ip":
        return ip();
      case "arp":
        return arp();
      case "rarp":
        return rarp();
      case "any":
        return layers.labelled ? ip() : or(ip(), arp(), rarp());
    }
  }

  #net6(node: Extract<Primitive, { kind: "net6" }>): Block {
    const { layers } = this;
    return directed(node.direction, (isSource) => {
      const at = layers.network + (isSource ? 8 : 24);
      const words = node.address.map((word, index) => equal(at + index * 4, 4, word, node.mask[index]!));
      return and(layers.carries(IP6, node.span), ...words);
    });
  }

  #port(node: Extract<Primitive, { kind: "port" }>): Block {
    const { layers } = this;
    // libpcap's order: SCTP, TCP, UDP, and IPv6 before IPv4.
    const transports = node.transport === "any" ? (["sctp", "tcp", "udp"] as const) : [node.transport];
    const six = transports.map((transport) => {
      const port = directed(node.direction, (source) =>
        this.#inRange(node, layers.network + (source ? 40 : 42), false),
      );
      return and(equal(layers.network + 6, 1, TRANSPORTS[transport]), port);
    });
    const four = transports.map((transport) => {
      const port = directed(node.direction, (source) =>
        this.#inRange(node, layers.network + (source ? 0 : 2), true),
      );
      return and(equal(layers.network + 9, 1, TRANSPORTS[transport]), this.unfragmented(), port);
    });
    return or(
      and(layers.carries(IP6, node.span), or(six[0]!, ...six.slice(1))),
      and(layers.carries(IP, node.span), or(four[0]!, ...four.slice(1))),
    );
  }

  /** The port field at `at` lies in range; `indexed`: the length of the IPv4 header is added. */
  #inRange(node: { first: number; last: number }, at: number, indexed: boolean): Block {
    const header = { code: OP.LDX_MSH, k: this.layers.network };
    const load = (jump: "JEQ" | "JGE" | "JGT", k: number): Block =>
      indexed ? { kind: "test", statements: [header, loadIndexed(at, 2)], jump, k } : compare(at, 2, jump, k);
    if (node.first === node.last) return load("JEQ", node.first);
    return and(load("JGE", node.first), not(load("JGT", node.last)));
  }

  #multicast(layer: "ether" | "ip" | "ip6", span: Span): Block {
    const { layers } = this;
    if (layer === "ip") return and(layers.carries(IP, span), compare(layers.network + 16, 1, "JGE", 224));
    if (layer === "ip6") return and(layers.carries(IP6, span), equal(layers.network + 24, 1, 255));
    layers.needEthernet(span, "'multicast'");
    return compare(layers.link, 1, "JSET", 1);
  }

  #llc(node: Extract<Primitive, { kind: "llc" }>): Block {
    const { layers } = this;
    layers.needEthernet(node.span, "'llc'");
    // 0xffff is Novell's raw IPX, which has no LLC header.
    const present = and(layers.isLength(), not(equal(layers.llc, 2, 0xffff)));
    if (node.type === null) return present;
    const { mask, value } = LLC_TYPES[node.type];
    return and(present, equal(layers.llc + 2, 1, value, mask));
  }
}

/** src and dst: both tests; either: the source's first. */
function directed(direction: Direction, test: (source: boolean) => Block): Block {
  switch (direction) {
    case "src":
      return test(true);
    case "dst":
      return test(false);
    case "either":
      return or(test(true), test(false));
    case "both":
      return and(test(true), test(false));
  }
}

/** An Ethernet address: the last four bytes first, as libpcap does. */
function mac(offset: number, address: readonly number[]): Block {
  const [a, b, c, d, e, f] = address as [number, number, number, number, number, number];
  const tail = ((c << 24) | (d << 16) | (e << 8) | f) >>> 0;
  return and(equal(offset + 2, 4, tail), equal(offset, 2, (a << 8) | b));
}
