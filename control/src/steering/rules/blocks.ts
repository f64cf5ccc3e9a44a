// The form between syntax tree and program: tests of a packet, joined by and, or and not.
import { OP, type Opcode } from "./program.js";

/** One statement before a test: an instruction that is no jump. */
export interface Statement {
  readonly code: Opcode;
  readonly k: number;
}

/**
 * A test: its statements leave a value in A (and X), the jump decides. A statement that reads outside the
 * packet, or divides by zero, ends the whole program with "no match": so the order of tests matters.
 */
export interface Test {
  readonly kind: "test";
  readonly statements: readonly Statement[];
  readonly jump: "JEQ" | "JGT" | "JGE" | "JSET";
  /** The constant to compare with; null: X. */
  readonly k: number | null;
}

/** Tests joined. `and` and `or` evaluate from left to right and stop as soon as the value is known. */
export type Block =
  | Test
  | { readonly kind: "constant"; readonly value: boolean }
  | { readonly kind: "and" | "or"; readonly left: Block; readonly right: Block }
  | { readonly kind: "not"; readonly operand: Block };

export function and(left: Block, ...rest: readonly Block[]): Block {
  return rest.reduce<Block>((all, right) => ({ kind: "and", left: all, right }), left);
}

export function or(left: Block, ...rest: readonly Block[]): Block {
  return rest.reduce<Block>((all, right) => ({ kind: "or", left: all, right }), left);
}

export function not(operand: Block): Block {
  return { kind: "not", operand };
}

export const TRUE: Block = { kind: "constant", value: true };

/** Bytes that one load reads. */
export type Size = 1 | 2 | 4;

/** The load from a fixed offset, of 1, 2 or 4 bytes. */
export function loadAbsolute(offset: number, size: Size): Statement {
  const code = size === 4 ? OP.LD_W_ABS : size === 2 ? OP.LD_H_ABS : OP.LD_B_ABS;
  return { code, k: offset };
}

/** The load from X + offset. */
export function loadIndexed(offset: number, size: Size): Statement {
  const code = size === 4 ? OP.LD_W_IND : size === 2 ? OP.LD_H_IND : OP.LD_B_IND;
  return { code, k: offset };
}

/** Field at a fixed offset compared with a constant; a mask of all ones costs no instruction. */
export function compare(offset: number, size: Size, jump: Test["jump"], k: number, mask = 0xffffffff): Test {
  const load = loadAbsolute(offset, size);
  const statements = mask === 0xffffffff ? [load] : [load, { code: OP.AND_K, k: mask }];
  return { kind: "test", statements, jump, k };
}

/** Field at a fixed offset equals a constant. */
export function equal(offset: number, size: Size, k: number, mask = 0xffffffff): Test {
  return compare(offset, size, "JEQ", k, mask);
}
