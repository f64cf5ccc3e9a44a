// Words and numbers of a filter expression: longest match wins, as in pcap-filter's own scanner.
import type { BifurcateError } from "../../errors.js";
import { isIpv6Text } from "./addresses.js";
import { flowError } from "./flow-error.js";
import type { Span } from "./tree.js";
import { KEYWORDS, NAMED_NUMBERS } from "./words.js";

/**
 * - keyword: `text` is its canonical spelling (see KEYWORDS);
 * - symbol: an operator or a bracket; `&&`, `||` and `!` come as the keywords and, or, not; `==` as `=`;
 * - number: `value` is its value; - dotted: 10, 10.1, 10.1.2.3 with at least one dot;
 * - ipv6, mac, aid (ARCnet): as written; - name: anything else; `escaped` if it came after a backslash.
 */
export interface Token {
  readonly kind: "keyword" | "symbol" | "number" | "dotted" | "ipv6" | "mac" | "aid" | "name" | "end";
  readonly text: string;
  readonly value: number;
  readonly escaped: boolean;
  readonly span: Span;
}

const B = "[0-9A-Fa-f]{1,2}";
const B2 = "[0-9A-Fa-f]{4}";
const N = "(?:0[xX][0-9A-Fa-f]+|[0-9]+)";
const five = (separator: string): string => `${B}(?:${separator}${B}){5}`;

const MAC = [
  new RegExp(five(":"), "y"),
  new RegExp(five("-"), "y"),
  new RegExp(five("\\."), "y"),
  new RegExp(`${B2}\\.${B2}\\.${B2}`, "y"),
  new RegExp(`${B2}${B2}${B2}`, "y"),
];
const NUMBER = new RegExp(N, "y");
const DOTTED = new RegExp(`${N}(?:\\.${N}){1,3}`, "y");
const BROKEN_MAC = new RegExp(`${B}:+(?:${B}:+)+`, "y");
const NAME = /[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?/y;
const ESCAPED = /\\[^ !()\n\t]+/y;
const AID = new RegExp(`\\$${B}`, "y");
const V6_CHARACTERS = /[0-9A-Fa-f:.xX]{2,80}/y;
const SYMBOL = /&&|\|\||>=|<=|!=|==|<<|>>|[+\-*/%:[\]!<>()&|^=]/y;

const SYMBOL_WORDS: Readonly<Record<string, string>> = { "&&": "and", "||": "or", "!": "not" };

function lengthOf(pattern: RegExp, source: string, at: number): number {
  pattern.lastIndex = at;
  return pattern.exec(source)?.[0].length ?? 0;
}

/** Length of the longest IPv6 address that starts at `at`; 0 if none does. */
function ipv6Length(source: string, at: number): number {
  const run = lengthOf(V6_CHARACTERS, source, at);
  for (let length = run; length >= 2; length--) {
    if (isIpv6Text(source.slice(at, at + length))) return length;
  }
  return 0;
}

/** The value of a number as written: decimal, 0x hexadecimal or 0 octal, of at most 32 bits. */
function numberValue(source: string, text: string, span: Span): number {
  const hex = /^0[xX]/.test(text);
  if (!hex && text.length > 1 && text.startsWith("0") && /[89]/.test(text)) {
    throw flowError("E_FLOW_SYNTAX", source, span, `${text} starts with 0 and is not octal`);
  }
  const octal = !hex && text.length > 1 && text.startsWith("0");
  const value = octal ? Number.parseInt(text, 8) : Number(text);
  if (value > 0xffffffff) throw flowError("E_FLOW_SYNTAX", source, span, `${text} does not fit 32 bits`);
  return value;
}

/** Splits an expression into tokens; the last one is always "end". */
export function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  while (at < source.length) {
    if (" \r\n\t".includes(source[at]!)) {
      at++;
      continue;
    }
    const token = next(source, at);
    tokens.push(token);
    at = token.span.end;
  }
  const end = { start: source.length, end: source.length };
  tokens.push({ kind: "end", text: "", value: 0, escaped: false, span: end });
  return tokens;
}

function next(source: string, at: number): Token {
  // In order of preference among matches of equal length.
  const candidates: [Token["kind"] | "broken-mac", number][] = [
    ["symbol", lengthOf(SYMBOL, source, at)],
    ["aid", lengthOf(AID, source, at)],
    ["mac", Math.max(...MAC.map((pattern) => lengthOf(pattern, source, at)))],
    ["number", lengthOf(NUMBER, source, at)],
    ["dotted", lengthOf(DOTTED, source, at)],
    ["ipv6", ipv6Length(source, at)],
    ["broken-mac", lengthOf(BROKEN_MAC, source, at)],
    ["name", lengthOf(NAME, source, at)],
  ];
  let best = candidates[0]!;
  for (const candidate of candidates) if (candidate[1] > best[1]) best = candidate;
  const [kind, length] = best;
  const escaped = lengthOf(ESCAPED, source, at);
  if (escaped > length) {
    const span = { start: at, end: at + escaped };
    return { kind: "name", text: source.slice(at + 1, at + escaped), value: 0, escaped: true, span };
  }
  if (length === 0) throw strange(source, at);
  const text = source.slice(at, at + length);
  const span = { start: at, end: at + length };
  const plain = { text, value: 0, escaped: false, span };
  switch (kind) {
    case "symbol": {
      const word = SYMBOL_WORDS[text];
      if (word !== undefined) return { ...plain, kind: "keyword", text: word };
      return { ...plain, kind: "symbol", text: text === "==" ? "=" : text };
    }
    case "number":
      return { ...plain, kind: "number", value: numberValue(source, text, span) };
    case "broken-mac":
      throw flowError("E_FLOW_SYNTAX", source, span, `${text} is neither an Ethernet nor an IPv6 address`);
    case "name": {
      const keyword = Object.hasOwn(KEYWORDS, text) ? KEYWORDS[text] : undefined;
      if (keyword !== undefined) return { ...plain, kind: "keyword", text: keyword };
      const value = Object.hasOwn(NAMED_NUMBERS, text) ? NAMED_NUMBERS[text] : undefined;
      if (value !== undefined) return { ...plain, kind: "number", value };
      return { ...plain, kind: "name" };
    }
    default:
      return { ...plain, kind };
  }
}

function strange(source: string, at: number): BifurcateError {
  const character = String.fromCodePoint(source.codePointAt(at)!);
  return flowError(
    "E_FLOW_SYNTAX",
    source,
    { start: at, end: at + character.length },
    `${JSON.stringify(character)} means nothing here`,
  );
}
