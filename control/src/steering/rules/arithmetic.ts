// Arithmetic and comparisons of values computed from a packet.
import { and, loadAbsolute, loadIndexed, not, type Block, type Statement, type Test } from "./blocks.js";
import { flowError } from "./flow-error.js";
import type { Lowering } from "./lower.js";
import { MEMORY_WORDS, OP, type Opcode } from "./program.js";
import type { Arithmetic, ArithmeticOperator, IndexedLayer, Primitive } from "./tree.js";

const OPCODES: Readonly<Record<ArithmeticOperator, { readonly k: Opcode; readonly x: Opcode }>> = {
  "+": { k: OP.ADD_K, x: OP.ADD_X },
  "-": { k: OP.SUB_K, x: OP.SUB_X },
  "*": { k: OP.MUL_K, x: OP.MUL_X },
  "/": { k: OP.DIV_K, x: OP.DIV_X },
  "%": { k: OP.MOD_K, x: OP.MOD_X },
  "&": { k: OP.AND_K, x: OP.AND_X },
  "|": { k: OP.OR_K, x: OP.OR_X },
  "^": { k: OP.XOR_K, x: OP.XOR_X },
  "<<": { k: OP.LSH_K, x: OP.LSH_X },
  ">>": { k: OP.RSH_K, x: OP.RSH_X },
};

/** The first offset at which nothing can be read: frames are far shorter than 2 GiB, and above it the kernel reads metadata. */
const NEVER = 0x7fffffff;

/** Lowers `left comparison right`, with the protocols that its loads imply tested first. */
export function lowerRelation(node: Extract<Primitive, { kind: "relation" }>, lowering: Lowering): Block {
  const left = fold(node.left);
  const right = fold(node.right);
  const jump: Test["jump"] = { "=": "JEQ", "!=": "JEQ", ">": "JGT", "<=": "JGT", ">=": "JGE", "<": "JGE" }[
    node.comparison
  ] as Test["jump"];
  const values = new Values(lowering);
  let test: Block;
  if (right.kind === "number") {
    test = { kind: "test", statements: values.compute(left, 0), jump, k: right.value };
  } else {
    const statements = [
      ...values.compute(right, 0),
      { code: OP.ST, k: 0 },
      ...values.compute(left, 1),
      { code: OP.LDX_MEM, k: 0 },
    ] as const;
    test = { kind: "test", statements, jump, k: null };
  }
  const holds =
    node.comparison === "!=" || node.comparison === "<=" || node.comparison === "<" ? not(test) : test;
  const conditions = [...protocols(left, lowering), ...protocols(right, lowering)];
  return conditions.reduceRight<Block>((rest, condition) => and(condition, rest), holds);
}

/**
 * The protocol tests that the loads of a value imply. As in libpcap, of a binary operation only the left side's
 * count: `ip[0] + tcp[0] = 5` asks for IP, not for TCP.
 */
function protocols(value: Arithmetic, lowering: Lowering): Block[] {
  switch (value.kind) {
    case "number":
    case "length":
      return [];
    case "negate":
      return protocols(value.operand, lowering);
    case "binary":
      // Still asked for: a protocol that cannot be told apart here is an error on either side.
      protocols(value.right, lowering);
      return protocols(value.left, lowering);
    case "load":
      return [...protocols(value.offset, lowering), ...layerTests(value, lowering)];
  }
}

function layerTests(load: Extract<Arithmetic, { kind: "load" }>, lowering: Lowering): Block[] {
  const { layer, span } = load;
  switch (layer) {
    case "ether":
      return [];
    case "icmp6": {
      const next = loadAbsolute(lowering.layers.network + 6, 1);
      return [lowering.protocol("ip6", span), { kind: "test", statements: [next], jump: "JEQ", k: 58 }];
    }
    default:
      if (!isTransport(layer)) return [lowering.protocol(layer, span)];
      return [lowering.protocol("ip", span), lowering.protocol(layer, span), lowering.unfragmented()];
  }
}

function isTransport(layer: IndexedLayer): boolean {
  return ["tcp", "udp", "sctp", "icmp", "igmp", "igrp", "pim", "vrrp", "carp"].includes(layer);
}

/** Computes constants. What can end the program (loads, division by zero) is kept. */
export function fold(value: Arithmetic): Arithmetic {
  switch (value.kind) {
    case "number":
    case "length":
      return value;
    case "negate": {
      const operand = fold(value.operand);
      if (operand.kind === "number") return { ...operand, value: -operand.value >>> 0 };
      return { ...value, operand };
    }
    case "load":
      return { ...value, offset: fold(value.offset) };
    case "binary": {
      const left = fold(value.left);
      const right = fold(value.right);
      if (left.kind === "number" && right.kind === "number") {
        const result = operate(value.operator, left.value, right.value);
        if (result !== null) return { kind: "number", value: result, span: value.span };
      }
      return { ...value, left, right };
    }
  }
}

/** One operation on unsigned 32-bit values; null: division by zero. Shifting out everything leaves 0. */
export function operate(operator: ArithmeticOperator, a: number, b: number): number | null {
  switch (operator) {
    case "+":
      return (a + b) >>> 0;
    case "-":
      return (a - b) >>> 0;
    case "*":
      return Math.imul(a, b) >>> 0;
    case "/":
      return b === 0 ? null : Math.trunc(a / b);
    case "%":
      return b === 0 ? null : a % b;
    case "&":
      return (a & b) >>> 0;
    case "|":
      return (a | b) >>> 0;
    case "^":
      return (a ^ b) >>> 0;
    case "<<":
      return b > 31 ? 0 : (a << b) >>> 0;
    case ">>":
      return b > 31 ? 0 : a >>> b;
  }
}

class Values {
  constructor(readonly lowering: Lowering) {}

  /** Statements that leave the value in A, using scratch words from `free` on. */
  compute(value: Arithmetic, free: number): Statement[] {
    switch (value.kind) {
      case "number":
        return [{ code: OP.LD_IMM, k: value.value }];
      case "length":
        return [{ code: OP.LD_LEN, k: 0 }];
      case "negate":
        return [...this.compute(value.operand, free), { code: OP.NEG, k: 0 }];
      case "binary":
        return this.#binary(value, free);
      case "load":
        return this.#load(value, free);
    }
  }

  #binary(value: Extract<Arithmetic, { kind: "binary" }>, free: number): Statement[] {
    const { operator, left, right } = value;
    const shift = operator === "<<" || operator === ">>";
    if (right.kind === "number" && !(shift && right.value > 31) && right.value !== 0) {
      return [...this.compute(left, free), { code: OPCODES[operator].k, k: right.value }];
    }
    const kept = this.#reserve(value, free);
    return [
      ...this.compute(right, free),
      { code: OP.ST, k: kept },
      ...this.compute(left, free + 1),
      { code: OP.LDX_MEM, k: kept },
      { code: OPCODES[operator].x, k: 0 },
    ];
  }

  #reserve(value: Arithmetic, free: number): number {
    if (free < MEMORY_WORDS) return free;
    throw flowError(
      "E_FLOW_TOO_LARGE",
      this.lowering.source,
      value.span,
      `the arithmetic needs more than ${MEMORY_WORDS} intermediate values`,
    );
  }

  #load(value: Extract<Arithmetic, { kind: "load" }>, free: number): Statement[] {
    const { layers } = this.lowering;
    const { layer, offset, size } = value;
    const transport = isTransport(layer);
    const base = layer === "ether" ? layers.link : layer === "icmp6" ? layers.network + 40 : layers.network;
    if (!transport) {
      if (offset.kind === "number") return [loadAbsolute(Math.min(base + offset.value, NEVER), size)];
      return [...this.compute(offset, free), { code: OP.TAX, k: 0 }, loadIndexed(base, size)];
    }
    const header = { code: OP.LDX_MSH, k: base };
    // The header's length and the offset add up in 32 bits; the base comes on top without wrapping around.
    if (offset.kind === "number" && offset.value < 0x10000) {
      return [header, loadIndexed(base + offset.value, size)];
    }
    const kept = this.#reserve(value, free);
    return [
      ...this.compute(offset, free),
      { code: OP.ST, k: kept },
      header,
      { code: OP.LD_MEM, k: kept },
      { code: OP.ADD_X, k: 0 },
      { code: OP.TAX, k: 0 },
      loadIndexed(base, size),
    ];
  }
}
