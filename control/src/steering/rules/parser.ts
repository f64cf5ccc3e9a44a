// Expression text to syntax tree: qualifiers carried over from one primitive to the next, names made numbers.
import { mask128, mask32, parseDotted, parseIpv6, parseMac } from "./addresses.js";
import { flowError, type FlowErrorCode } from "./flow-error.js";
import { parseRaw } from "./grammar.js";
import type { Qualifiers, RawExpression, RawId } from "./raw.js";
import type { Direction, Expression, ProtocolWord, Span } from "./tree.js";
import { ETHER_PROTOCOLS, IP_PROTOCOLS, ISO_PROTOCOLS, KNOWN_PORTS } from "./words.js";

/**
 * Parses a pcap-filter(7) expression. Throws a BifurcateError: E_FLOW_SYNTAX (not valid), E_FLOW_NAME (a name
 * that only a lookup could resolve), E_FLOW_UNSUPPORTED (valid, and not implemented here); its data has the
 * position.
 */
export function parse(source: string): Expression {
  return new Resolver(source).expression(parseRaw(source), null).tree;
}

/** IS-IS PDU types (ISO 10589) that a word stands for. */
const ISIS_WORDS: Readonly<Record<string, readonly number[]>> = {
  l1: [26, 24, 18, 15, 17],
  l2: [27, 25, 20, 16, 17],
  iih: [17, 16, 15],
  lsp: [20, 18],
  snp: [27, 26, 25, 24],
  csnp: [25, 24],
  psnp: [27, 26],
};

interface Resolved {
  readonly tree: Expression;
  /** Qualifiers that a bare address after this one takes over; null: none. */
  readonly qualifiers: Qualifiers | null;
}

class Resolver {
  constructor(readonly source: string) {}

  #error(span: Span, why: string, code: FlowErrorCode = "E_FLOW_SYNTAX", next?: string): Error {
    return flowError(code, this.source, span, why, next);
  }

  expression(raw: RawExpression, before: Qualifiers | null): Resolved {
    switch (raw.kind) {
      case "and":
      case "or": {
        const left = this.expression(raw.left, before);
        const right = this.expression(raw.right, left.qualifiers);
        const tree = { kind: raw.kind, left: left.tree, right: right.tree, span: raw.span };
        return { tree, qualifiers: right.qualifiers };
      }
      case "not": {
        const { tree, qualifiers } = this.expression(raw.operand, before);
        return { tree: { kind: "not", operand: tree, span: raw.span }, qualifiers };
      }
      case "group":
        // What stands in parentheses leaves no qualifiers behind.
        return { tree: this.expression(raw.inner, before).tree, qualifiers: before };
      case "qualified":
        return { tree: this.#id(raw.id, raw.qualifiers, raw.span), qualifiers: raw.qualifiers };
      case "bare":
        if (before === null) {
          throw this.#error(
            raw.span,
            "nothing before it says what it is",
            "E_FLOW_SYNTAX",
            "Write host, net or port in front.",
          );
        }
        return { tree: this.#id(raw.id, before, raw.span), qualifiers: before };
      case "protocol":
        return { tree: this.#protocol(raw.protocol, raw.span), qualifiers: null };
      case "cast":
        return { tree: this.#cast(raw), qualifiers: null };
      case "primitive": {
        const { primitive } = raw;
        if (primitive.kind === "vlan" && (primitive.id ?? 0) > 4095) {
          throw this.#error(raw.span, `VLAN ${primitive.id} is greater than 4095`);
        }
        if (primitive.kind === "mpls" && (primitive.label ?? 0) > 0xfffff) {
          throw this.#error(raw.span, `MPLS label ${primitive.label} is greater than 1048575`);
        }
        if (primitive.kind === "pppoes" && (primitive.session ?? 0) > 0xffff) {
          throw this.#error(raw.span, `PPPoE session ${primitive.session} is greater than 65535`);
        }
        return { tree: primitive, qualifiers: null };
      }
    }
  }

  #protocol(word: string, span: Span): Expression {
    const pdus = Object.hasOwn(ISIS_WORDS, word) ? ISIS_WORDS[word] : undefined;
    if (pdus === undefined) return { kind: "protocol", protocol: word as ProtocolWord, span };
    return pdus
      .map((number): Expression => ({ kind: "proto", layer: "isis", number, span }))
      .reduce((left, right) => ({ kind: "or", left, right, span }));
  }

  #cast(raw: Extract<RawExpression, { kind: "cast" }>): Expression {
    const { protocol, cast, span } = raw;
    const layer = protocol ?? "ether";
    if (cast === "broadcast") {
      if (layer === "ether") return { kind: "broadcast", span };
      if (layer !== "ip") throw this.#error(span, `'${layer} broadcast' does not exist`);
      const next = "Write the broadcast address: ip dst host 192.168.1.255.";
      throw this.#error(
        span,
        "'ip broadcast' depends on the interface's netmask",
        "E_FLOW_UNSUPPORTED",
        next,
      );
    }
    if (layer !== "ether" && layer !== "ip" && layer !== "ip6") {
      throw this.#error(span, `'${layer} multicast' does not exist`);
    }
    return { kind: "multicast", layer, span };
  }

  /** Qualifiers applied to an address, a number or a name. */
  #id(id: RawId, qualifiers: Qualifiers, span: Span): Expression {
    switch (id.kind) {
      case "not":
        return { kind: "not", operand: this.#id(id.operand, qualifiers, id.operand.span), span };
      case "and":
      case "or": {
        const left = this.#id(id.left, qualifiers, id.left.span);
        return { kind: id.kind, left, right: this.#id(id.right, qualifiers, id.right.span), span };
      }
      case "number":
        return this.#numbered(id.value, qualifiers, span);
      case "name":
        return this.#named(id, qualifiers, span);
      case "dotted":
        return this.#dotted(id, qualifiers, span);
      case "ipv6":
        return this.#ipv6(id, qualifiers, span);
      case "mac": {
        const { protocol, type } = qualifiers;
        if (protocol !== "ether" || (type !== null && type !== "host")) {
          throw this.#error(span, "an Ethernet address needs 'ether' in front, e.g. ether host");
        }
        return { kind: "mac", direction: qualifiers.direction ?? "either", address: parseMac(id.text), span };
      }
      case "aid":
        throw this.#error(id.span, "an ARCnet address on Ethernet", "E_FLOW_UNSUPPORTED");
    }
  }

  #numbered(value: number, qualifiers: Qualifiers, span: Span): Expression {
    switch (qualifiers.type) {
      case "port":
      case "portrange":
        return this.#ports(value, value, qualifiers, span);
      case "proto":
        return this.#proto(value, qualifiers, span);
      default: {
        // A lone number is an address; with `net`, its missing low bytes are the network's hosts.
        let address = value;
        let mask = 0xffffffff;
        if (qualifiers.type === "net") {
          while (address !== 0 && address >>> 24 === 0) {
            address = (address << 8) >>> 0;
            mask = (mask << 8) >>> 0;
          }
        }
        return this.#net4(address, mask, qualifiers, span);
      }
    }
  }

  #named(id: Extract<RawId, { kind: "name" }>, qualifiers: Qualifiers, span: Span): Expression {
    const { text } = id;
    const { type, protocol } = qualifiers;
    if (type === "portrange") {
      const range = /^(\d+)-(\d+)$/.exec(text) ?? /^(\d+)$/.exec(text);
      if (range !== null) {
        const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
        return this.#ports(Math.min(first, last), Math.max(first, last), qualifiers, span);
      }
    }
    if (type === "port" || type === "portrange") {
      this.#transport(qualifiers, span);
      const known = Object.hasOwn(KNOWN_PORTS, text) ? KNOWN_PORTS[text] : undefined;
      const next = known === undefined ? undefined : `Write the number: ${type} ${known}.`;
      if (/^\d+-\d+$/.test(text)) {
        throw this.#error(id.span, `'${text}' is a range`, "E_FLOW_NAME", `Write portrange ${text}.`);
      }
      throw this.#error(id.span, `the port name '${text}' needs a lookup`, "E_FLOW_NAME", next);
    }
    if (type === "proto") {
      const table =
        protocol === "ether" ? ETHER_PROTOCOLS : protocol === "iso" ? ISO_PROTOCOLS : IP_PROTOCOLS;
      const number = Object.hasOwn(table, text) ? table[text] : undefined;
      if (number !== undefined) return this.#proto(number, qualifiers, span);
      this.#proto(0, qualifiers, span);
      throw this.#error(id.span, `the protocol name '${text}' needs a lookup`, "E_FLOW_NAME");
    }
    const kind = protocol === "ether" ? "Ethernet" : type === "net" ? "network" : "host";
    throw this.#error(id.span, `the ${kind} name '${text}' needs a lookup`, "E_FLOW_NAME");
  }

  #dotted(id: Extract<RawId, { kind: "dotted" }>, qualifiers: Qualifiers, span: Span): Expression {
    const number = parseDotted(id.text);
    if (number === null) throw this.#error(id.span, `'${id.text}' is no IPv4 address`);
    const { type } = qualifiers;
    if (type === "port" || type === "portrange" || type === "proto") {
      throw this.#error(id.span, `'${type}' with an address`);
    }
    const address = shiftLeft(number.value, 32 - number.bits);
    if (id.mask === null) return this.#net4(address, mask32(number.bits), qualifiers, span);
    if (type !== "net") throw this.#error(id.mask.span, "a mask goes with 'net' only");
    let mask: number;
    if (id.mask.kind === "bits") {
      if (id.mask.bits > 32) throw this.#error(id.mask.span, "an IPv4 prefix is at most 32 bits long");
      mask = mask32(id.mask.bits);
    } else {
      const written = parseDotted(id.mask.text);
      if (written === null) throw this.#error(id.mask.span, `'${id.mask.text}' is no mask`);
      mask = shiftLeft(written.value, 32 - written.bits);
    }
    if ((address & ~mask) !== 0) throw this.#error(id.span, "the address has bits outside its mask");
    return this.#net4(address, mask, qualifiers, span);
  }

  #ipv6(id: Extract<RawId, { kind: "ipv6" }>, qualifiers: Qualifiers, span: Span): Expression {
    const address = parseIpv6(id.text)!;
    const { type, protocol } = qualifiers;
    if (type === "port" || type === "portrange" || type === "proto") {
      throw this.#error(id.span, `'${type}' with an address`);
    }
    const bits = id.bits ?? 128;
    if (bits > 128) throw this.#error(id.span, "an IPv6 prefix is at most 128 bits long");
    const mask = mask128(bits);
    if (address.some((word, index) => (word & ~mask[index]!) !== 0)) {
      throw this.#error(id.span, "the address has bits outside its mask");
    }
    if (bits !== 128 && type !== "net") throw this.#error(id.span, "a prefix length goes with 'net' only");
    if (protocol !== null && protocol !== "ip6")
      throw this.#error(span, `'${protocol}' with an IPv6 address`);
    return { kind: "net6", direction: qualifiers.direction ?? "either", address, mask, span };
  }

  #net4(address: number, mask: number, qualifiers: Qualifiers, span: Span): Expression {
    const { protocol } = qualifiers;
    const layer = protocol ?? "any";
    if (layer === "decnet")
      throw this.#error(span, "DECnet addresses are not supported", "E_FLOW_UNSUPPORTED");
    if (layer !== "any" && layer !== "ip" && layer !== "arp" && layer !== "rarp") {
      throw this.#error(span, `'${layer}' with an IPv4 address`);
    }
    return { kind: "net4", layer, direction: qualifiers.direction ?? "either", address, mask, span };
  }

  #transport(qualifiers: Qualifiers, span: Span): "any" | "tcp" | "udp" | "sctp" {
    const transport = qualifiers.protocol ?? "any";
    if (transport !== "any" && transport !== "tcp" && transport !== "udp" && transport !== "sctp") {
      throw this.#error(span, `'${transport}' has no ports`);
    }
    return transport;
  }

  #ports(first: number, last: number, qualifiers: Qualifiers, span: Span): Expression {
    const transport = this.#transport(qualifiers, span);
    if (last > 65535) throw this.#error(span, `port ${last} is greater than 65535`);
    const direction: Direction = qualifiers.direction ?? "either";
    return { kind: "port", transport, direction, first, last, span };
  }

  #proto(number: number, qualifiers: Qualifiers, span: Span): Expression {
    const layer = qualifiers.protocol ?? "any";
    switch (layer) {
      case "any":
      case "ip":
      case "ip6":
      case "ether":
      case "iso":
      case "isis":
        return { kind: "proto", layer, number, span };
      default:
        throw this.#error(span, `'${layer}' carries no protocol numbers`);
    }
  }
}

function shiftLeft(value: number, bits: number): number {
  return bits === 32 ? 0 : (value << bits) >>> 0;
}
