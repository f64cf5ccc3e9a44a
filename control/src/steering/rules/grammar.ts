// The grammar of pcap-filter(7): tokens to a raw tree, in which qualifiers are not yet carried over.
import { flowError } from "./flow-error.js";
import { tokenize, type Token } from "./lexer.js";
import type { Qualifiers, RawExpression, RawId, RawMask } from "./raw.js";
import type {
  Arithmetic,
  ArithmeticOperator,
  Comparison,
  IndexedLayer,
  LlcType,
  Primitive,
  Span,
} from "./tree.js";
import { UNSUPPORTED } from "./unsupported.js";
import { LLC_TYPES, PROTOCOL_WORDS } from "./words.js";

const INDEXED: ReadonlySet<string> = new Set<IndexedLayer>([
  "ether",
  "ip",
  "ip6",
  "arp",
  "rarp",
  "atalk",
  "decnet",
  "lat",
  "sca",
  "moprc",
  "mopdl",
  "tcp",
  "udp",
  "sctp",
  "icmp",
  "igmp",
  "igrp",
  "pim",
  "vrrp",
  "carp",
  "icmp6",
]);

/** How tightly an operator binds. `%` and `^` have no rank in pcap-filter's grammar: see {@link binary}. */
const RANK: Readonly<Record<string, number>> = {
  "|": 1,
  "&": 2,
  "<<": 3,
  ">>": 3,
  "+": 4,
  "-": 4,
  "*": 5,
  "/": 5,
};
const LOOSEST = 0;
const UNARY_MINUS = 6;
/** Deeper nesting than this is refused, so that no expression exhausts the stack. */
const MAX_DEPTH = 200;

/** No expression of more words fits a program. */
const MAX_TOKENS = 10_000;

const COMPARISONS: ReadonlySet<string> = new Set(["=", "!=", "<", "<=", ">", ">="]);

interface Parsed<T> {
  readonly node: T;
  readonly next: number;
}

/** Parses an expression into its raw tree, or throws a coded error that points at the first wrong character. */
export function parseRaw(source: string): RawExpression {
  const grammar = new Grammar(source);
  return grammar.whole();
}

class Grammar {
  readonly #tokens: Token[];
  readonly #memo = new Map<string, Parsed<never> | null>();
  #furthest = 0;
  #expected = new Set<string>();
  #depth = 0;

  constructor(readonly source: string) {
    this.#tokens = tokenize(source);
  }

  whole(): RawExpression {
    if (this.#tokens.length === 1) {
      const span = { start: 0, end: this.source.length };
      throw flowError(
        "E_FLOW_SYNTAX",
        this.source,
        span,
        "the expression is empty",
        "Write `all` for the whole card.",
      );
    }
    if (this.#tokens.length > MAX_TOKENS) {
      const { span } = this.#tokens[MAX_TOKENS]!;
      throw flowError(
        "E_FLOW_TOO_LARGE",
        this.source,
        span,
        `the expression has more than ${MAX_TOKENS} words`,
      );
    }
    const result = this.#expression(0);
    if (result !== null && this.#tokens[result.next]!.kind === "end") return result.node;
    if (result !== null) {
      this.#fail(result.next, "'and'");
      this.#fail(result.next, "'or'");
    }
    throw this.#syntaxError();
  }

  #syntaxError(): Error {
    const token = this.#tokens[this.#furthest]!;
    const found = token.kind === "end" ? "the expression ends" : `'${this.#textOf(token)}' stands`;
    const wanted = [...this.#expected];
    const list =
      wanted.length > 1
        ? `${wanted.slice(0, -1).join(", ")} or ${wanted.at(-1)!}`
        : (wanted[0] ?? "something else");
    return flowError("E_FLOW_SYNTAX", this.source, token.span, `${found} where ${list} was expected`);
  }

  #textOf(token: Token): string {
    return this.source.slice(token.span.start, token.span.end);
  }

  #fail(at: number, expected: string): null {
    if (at > this.#furthest) {
      this.#furthest = at;
      this.#expected = new Set();
    }
    if (at === this.#furthest) this.#expected.add(expected);
    return null;
  }

  #remembered<T>(rule: string, at: number, parse: () => Parsed<T> | null): Parsed<T> | null {
    const key = `${rule} ${at}`;
    const known = this.#memo.get(key);
    if (known !== undefined) return known as Parsed<T> | null;
    if (++this.#depth > MAX_DEPTH) {
      throw flowError(
        "E_FLOW_TOO_LARGE",
        this.source,
        this.#tokens[at]!.span,
        "the expression is nested too deeply",
      );
    }
    const result = parse();
    this.#depth--;
    this.#memo.set(key, result as Parsed<never> | null);
    return result;
  }

  #is(at: number, kind: "keyword" | "symbol", text: string): boolean {
    const token = this.#tokens[at];
    return token !== undefined && token.kind === kind && token.text === text;
  }

  #keyword(at: number): string | null {
    const token = this.#tokens[at]!;
    return token.kind === "keyword" ? token.text : null;
  }

  #span(from: number, next: number): Span {
    return { start: this.#tokens[from]!.span.start, end: this.#tokens[next - 1]!.span.end };
  }

  #expression(at: number): Parsed<RawExpression> | null {
    return this.#remembered("expression", at, () => {
      let left = this.#term(at);
      if (left === null) return null;
      for (;;) {
        const word = this.#keyword(left.next);
        if (word !== "and" && word !== "or") return left;
        const operand: number = left.next + 1;
        const right: Parsed<RawExpression> | null = this.#term(operand) ?? this.#bare(operand);
        if (right === null) return null;
        const span = this.#span(at, right.next);
        left = { node: { kind: word, left: left.node, right: right.node, span }, next: right.next };
      }
    });
  }

  #bare(at: number): Parsed<RawExpression> | null {
    const id = this.#id(at);
    return id && { node: { kind: "bare", id: id.node, span: id.node.span }, next: id.next };
  }

  #term(at: number): Parsed<RawExpression> | null {
    return this.#remembered("term", at, () => {
      const word = this.#keyword(at);
      if (word !== null && Object.hasOwn(UNSUPPORTED, word)) throw this.#unsupported(at);
      if (word === "not") {
        const operand: Parsed<RawExpression> | null = this.#term(at + 1);
        return (
          operand && {
            node: { kind: "not", operand: operand.node, span: this.#span(at, operand.next) },
            next: operand.next,
          }
        );
      }
      return (
        this.#relation(at) ??
        this.#group(at) ??
        this.#special(at) ??
        this.#qualified(at) ??
        this.#protocol(at)
      );
    });
  }

  #unsupported(at: number): Error {
    const { text, span } = this.#tokens[at]!;
    return flowError(
      "E_FLOW_UNSUPPORTED",
      this.source,
      span,
      `'${text}' is not supported: ${UNSUPPORTED[text]!}`,
    );
  }

  #group(at: number): Parsed<RawExpression> | null {
    if (!this.#is(at, "symbol", "(")) return null;
    const inner = this.#expression(at + 1);
    if (inner === null) return null;
    if (!this.#is(inner.next, "symbol", ")")) return this.#fail(inner.next, "')'");
    const next = inner.next + 1;
    return { node: { kind: "group", inner: inner.node, span: this.#span(at, next) }, next };
  }

  #protocol(at: number): Parsed<RawExpression> | null {
    const word = this.#keyword(at);
    if (word === null || !PROTOCOL_WORDS.has(word)) return this.#fail(at, "a primitive");
    if (word === "ether") return this.#fail(at + 1, "'src', 'dst', 'host', 'proto', 'broadcast' or '['");
    return { node: { kind: "protocol", protocol: word, span: this.#span(at, at + 1) }, next: at + 1 };
  }

  /** A qualifier list and what it applies to. */
  #qualified(start: number): Parsed<RawExpression> | null {
    let at = start;
    const word = this.#keyword(at);
    const protocol = word !== null && PROTOCOL_WORDS.has(word) ? word : null;
    if (protocol !== null) at++;
    const direction = this.#direction(at);
    if (direction !== null) at = direction.next;
    const following = this.#keyword(at);
    if (following === "gateway" || following === "protochain") throw this.#unsupported(at);
    let type: Qualifiers["type"] = null;
    if (following === "host" || following === "net" || following === "port" || following === "portrange") {
      type = following;
      at++;
    } else if (following === "proto" && direction === null) {
      type = following;
      at++;
    }
    if (direction === null && type === null) return null;
    const id = this.#id(at);
    if (id === null) return null;
    const qualifiers = { protocol, direction: direction?.node ?? null, type, span: this.#span(start, at) };
    const span = this.#span(start, id.next);
    return { node: { kind: "qualified", qualifiers, id: id.node, span }, next: id.next };
  }

  #direction(at: number): Parsed<"src" | "dst" | "either" | "both"> | null {
    const word = this.#keyword(at);
    if (word !== null && /^(addr\d|ra|ta)$/.test(word)) throw this.#unsupported(at);
    if (word !== "src" && word !== "dst") return null;
    const joint = this.#keyword(at + 1);
    const other = joint === null ? null : this.#keyword(at + 2);
    if ((joint === "or" || joint === "and") && other === (word === "src" ? "dst" : "src")) {
      return { node: joint === "or" ? "either" : "both", next: at + 3 };
    }
    return { node: word, next: at + 1 };
  }

  #id(at: number): Parsed<RawId> | null {
    return this.#remembered("id", at, () => {
      const number = this.#number(at);
      if (number !== null) {
        const span = this.#span(at, number.next);
        return { node: { kind: "number", value: number.node, span }, next: number.next };
      }
      if (this.#is(at, "symbol", "(")) return this.#idList(at);
      return this.#simpleId(at);
    });
  }

  /** A number, in any number of parentheses. */
  #number(at: number): Parsed<number> | null {
    const token = this.#tokens[at]!;
    if (token.kind === "number") return { node: token.value, next: at + 1 };
    if (!this.#is(at, "symbol", "(")) return null;
    return this.#remembered("number", at, () => {
      const inner = this.#number(at + 1);
      if (inner === null || !this.#is(inner.next, "symbol", ")")) return null;
      return { node: inner.node, next: inner.next + 1 };
    });
  }

  #idList(open: number): Parsed<RawId> | null {
    const at = open + 1;
    const number = this.#number(at);
    let left: Parsed<RawId> | null =
      number === null
        ? this.#simpleId(at)
        : {
            node: { kind: "number", value: number.node, span: this.#span(at, number.next) },
            next: number.next,
          };
    if (left === null) return null;
    for (;;) {
      const word = this.#keyword(left.next);
      if (word !== "and" && word !== "or") break;
      const right: Parsed<RawId> | null = this.#id(left.next + 1);
      if (right === null) return null;
      const span = this.#span(at, right.next);
      left = { node: { kind: word, left: left.node, right: right.node, span }, next: right.next };
    }
    if (!this.#is(left.next, "symbol", ")")) return this.#fail(left.next, "')'");
    return { node: left.node, next: left.next + 1 };
  }

  #simpleId(at: number): Parsed<RawId> | null {
    const { kind, text, escaped, span } = this.#tokens[at]!;
    const next = at + 1;
    switch (kind) {
      case "name":
        return { node: { kind, text, escaped, span }, next };
      case "mac":
        return { node: { kind, text, span }, next };
      case "aid":
        return { node: { kind, span }, next };
      case "dotted":
        return this.#dotted(at);
      case "ipv6": {
        if (!this.#is(next, "symbol", "/")) return { node: { kind, text, bits: null, span }, next };
        const bits = this.#tokens[next + 1]!;
        if (bits.kind !== "number") return this.#fail(next + 1, "the length of a prefix");
        return { node: { kind, text, bits: bits.value, span: this.#span(at, next + 2) }, next: next + 2 };
      }
      case "keyword": {
        if (text !== "not") return this.#fail(at, "an address, a number or a name");
        const operand: Parsed<RawId> | null = this.#id(next);
        return (
          operand && {
            node: { kind: "not", operand: operand.node, span: this.#span(at, operand.next) },
            next: operand.next,
          }
        );
      }
      default:
        return this.#fail(at, "an address, a number or a name");
    }
  }

  #dotted(at: number): Parsed<RawId> | null {
    const { text, span } = this.#tokens[at]!;
    const next = at + 1;
    if (this.#is(next, "symbol", "/")) {
      const bits = this.#tokens[next + 1]!;
      if (bits.kind !== "number") return this.#fail(next + 1, "the length of a prefix");
      const mask: RawMask = { kind: "bits", bits: bits.value, span: bits.span };
      return { node: { kind: "dotted", text, mask, span: this.#span(at, next + 2) }, next: next + 2 };
    }
    if (this.#is(next, "keyword", "mask")) {
      const dotted = this.#tokens[next + 1]!;
      if (dotted.kind !== "dotted") return this.#fail(next + 1, "a mask such as 255.255.0.0");
      const mask: RawMask = { kind: "dotted", text: dotted.text, span: dotted.span };
      return { node: { kind: "dotted", text, mask, span: this.#span(at, next + 2) }, next: next + 2 };
    }
    return { node: { kind: "dotted", text, mask: null, span }, next };
  }

  /** Primitives that take no qualifier list. */
  #special(at: number): Parsed<RawExpression> | null {
    const token = this.#tokens[at]!;
    const single = (primitive: Primitive, next: number): Parsed<RawExpression> => ({
      node: { kind: "primitive", primitive, span: primitive.span },
      next,
    });
    if (token.kind === "name" && token.text === "all" && !token.escaped) {
      return single({ kind: "all", span: token.span }, at + 1);
    }
    if (token.kind !== "keyword") return null;
    const cast = this.#cast(at);
    if (cast !== null) return cast;
    switch (token.text) {
      case "less":
      case "greater": {
        const value = this.#tokens[at + 1]!;
        if (value.kind !== "number") return this.#fail(at + 1, "a length");
        const comparison = token.text === "less" ? "<=" : ">=";
        return single({ kind: "size", comparison, value: value.value, span: this.#span(at, at + 2) }, at + 2);
      }
      case "byte":
        return this.#byte(at);
      case "vlan":
      case "mpls": {
        const number = this.#number(at + 1);
        const next = number?.next ?? at + 1;
        const span = this.#span(at, next);
        const value = number?.node ?? null;
        return single(
          token.text === "vlan" ? { kind: "vlan", id: value, span } : { kind: "mpls", label: value, span },
          next,
        );
      }
      case "pppoes": {
        const number = this.#number(at + 1);
        const next = number?.next ?? at + 1;
        return single({ kind: "pppoes", session: number?.node ?? null, span: this.#span(at, next) }, next);
      }
      case "pppoed":
        return single({ kind: "pppoed", span: token.span }, at + 1);
      case "llc":
        return this.#llc(at);
      default:
        return null;
    }
  }

  #cast(at: number): Parsed<RawExpression> | null {
    const word = this.#keyword(at)!;
    const protocol = PROTOCOL_WORDS.has(word) ? word : null;
    const place = protocol === null ? at : at + 1;
    const cast = this.#keyword(place);
    if (cast !== "broadcast" && cast !== "multicast") return null;
    return { node: { kind: "cast", protocol, cast, span: this.#span(at, place + 1) }, next: place + 1 };
  }

  #llc(at: number): Parsed<RawExpression> {
    const following = this.#tokens[at + 1]!;
    const named = following.kind === "name" || (following.kind === "keyword" && following.text === "rnr");
    const next = named ? at + 2 : at + 1;
    const span = this.#span(at, next);
    const type = named ? following.text.toLowerCase() : null;
    if (type !== null && !Object.hasOwn(LLC_TYPES, type)) {
      throw flowError(
        "E_FLOW_SYNTAX",
        this.source,
        following.span,
        `'${following.text}' is no LLC frame type`,
      );
    }
    return {
      node: { kind: "primitive", primitive: { kind: "llc", type: type as LlcType | null, span }, span },
      next,
    };
  }

  #byte(at: number): Parsed<RawExpression> | null {
    const offset = this.#tokens[at + 1]!;
    if (offset.kind !== "number") return this.#fail(at + 1, "an offset");
    const operator = this.#tokens[at + 2]!;
    const value = this.#tokens[at + 3];
    if (operator.kind === "symbol" && (operator.text === "&" || operator.text === "|")) {
      throw flowError(
        "E_FLOW_UNSUPPORTED",
        this.source,
        operator.span,
        `'byte' with '${operator.text}' is not supported: libpcap's code for it reads no byte`,
        `Write ether[${offset.value}] ${operator.text} N != 0.`,
      );
    }
    if (operator.kind !== "symbol" || !["=", "<", ">"].includes(operator.text))
      return this.#fail(at + 2, "'=', '<' or '>'");
    if (value?.kind !== "number") return this.#fail(at + 3, "a number");
    const comparison = operator.text as "=" | "<" | ">";
    const span = this.#span(at, at + 4);
    const primitive: Primitive = { kind: "byte", offset: offset.value, comparison, value: value.value, span };
    return { node: { kind: "primitive", primitive, span }, next: at + 4 };
  }

  #relation(at: number): Parsed<RawExpression> | null {
    const left = this.#arithmetic(at, LOOSEST);
    if (left === null) return null;
    const operator = this.#tokens[left.next]!;
    if (operator.kind !== "symbol" || !COMPARISONS.has(operator.text)) {
      return this.#fail(left.next, "a comparison");
    }
    const right = this.#arithmetic(left.next + 1, LOOSEST);
    if (right === null) return null;
    const span = this.#span(at, right.next);
    const comparison = operator.text as Comparison;
    const primitive: Primitive = { kind: "relation", comparison, left: left.node, right: right.node, span };
    return { node: { kind: "primitive", primitive, span }, next: right.next };
  }

  /**
   * Operators that bind tighter than `rank`. An operator without a rank (% and ^) is always taken, and its right
   * side takes everything that follows: so pcap-filter's parser generator resolves them.
   */
  #arithmetic(at: number, rank: number): Parsed<Arithmetic> | null {
    return this.#remembered(`arithmetic ${rank}`, at, () => {
      let left = this.#operand(at);
      if (left === null) return null;
      for (;;) {
        const token: Token = this.#tokens[left.next]!;
        if (token.kind !== "symbol") return left;
        const unranked = token.text === "%" || token.text === "^";
        const own = unranked ? LOOSEST : RANK[token.text];
        if (own === undefined || (!unranked && own <= rank)) return left;
        const right = this.#arithmetic(left.next + 1, own);
        if (right === null) return null;
        const operator = token.text as ArithmeticOperator;
        this.#checkConstant(operator, right.node);
        const span = this.#span(at, right.next);
        left = {
          node: { kind: "binary", operator, left: left.node, right: right.node, span },
          next: right.next,
        };
      }
    });
  }

  #checkConstant(operator: ArithmeticOperator, right: Arithmetic): void {
    if (right.kind !== "number") return;
    if ((operator === "/" || operator === "%") && right.value === 0) {
      throw flowError("E_FLOW_SYNTAX", this.source, right.span, "division by zero");
    }
    if ((operator === "<<" || operator === ">>") && right.value > 31) {
      throw flowError("E_FLOW_SYNTAX", this.source, right.span, "a shift by more than 31 bits");
    }
  }

  #operand(at: number): Parsed<Arithmetic> | null {
    const { kind, text, value, span } = this.#tokens[at]!;
    if (kind === "number") return { node: { kind: "number", value, span }, next: at + 1 };
    if (kind === "keyword" && text === "len") return { node: { kind: "length", span }, next: at + 1 };
    if (kind === "keyword" && PROTOCOL_WORDS.has(text)) return this.#load(at);
    if (kind !== "symbol") return null;
    if (text === "-") {
      const operand: Parsed<Arithmetic> | null = this.#arithmetic(at + 1, UNARY_MINUS);
      return (
        operand && {
          node: { kind: "negate", operand: operand.node, span: this.#span(at, operand.next) },
          next: operand.next,
        }
      );
    }
    if (text !== "(") return null;
    const inner = this.#arithmetic(at + 1, LOOSEST);
    if (inner === null || !this.#is(inner.next, "symbol", ")")) return null;
    return { node: inner.node, next: inner.next + 1 };
  }

  #load(at: number): Parsed<Arithmetic> | null {
    const word = this.#tokens[at]!;
    if (!this.#is(at + 1, "symbol", "[")) return null;
    if (word.text === "radio") throw this.#unsupported(at);
    if (!INDEXED.has(word.text)) {
      throw flowError("E_FLOW_SYNTAX", this.source, word.span, `'${word.text}' has no bytes to index`);
    }
    const offset = this.#arithmetic(at + 2, LOOSEST);
    if (offset === null) return this.#fail(at + 2, "an offset");
    let next = offset.next;
    let size: 1 | 2 | 4 = 1;
    if (this.#is(next, "symbol", ":")) {
      const token = this.#tokens[next + 1]!;
      if (token.kind !== "number") return this.#fail(next + 1, "a size");
      if (token.value !== 1 && token.value !== 2 && token.value !== 4) {
        throw flowError("E_FLOW_SYNTAX", this.source, token.span, "a size is 1, 2 or 4 bytes");
      }
      size = token.value;
      next += 2;
    }
    if (!this.#is(next, "symbol", "]")) return this.#fail(next, "']'");
    next++;
    const layer = word.text as IndexedLayer;
    return { node: { kind: "load", layer, offset: offset.node, size, span: this.#span(at, next) }, next };
  }
}
