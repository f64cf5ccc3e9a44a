// The reference interpreter of classic BPF: what a program says of a frame.
import { operate } from "./arithmetic.js";
import { MEMORY_WORDS, OP, opcodeName, type Program } from "./program.js";
import type { ArithmeticOperator } from "./tree.js";

const OPERATIONS: ReadonlyMap<number, ArithmeticOperator> = new Map([
  [OP.ADD_K, "+"],
  [OP.SUB_K, "-"],
  [OP.MUL_K, "*"],
  [OP.DIV_K, "/"],
  [OP.MOD_K, "%"],
  [OP.AND_K, "&"],
  [OP.OR_K, "|"],
  [OP.XOR_K, "^"],
  [OP.LSH_K, "<<"],
  [OP.RSH_K, ">>"],
]);
/** The bit that makes an operand X instead of k (BPF_X). */
const FROM_X = 0x08;

/**
 * Runs a program over a frame: the value it returns, 0 for no match. A load outside the frame, and a division
 * by zero, give 0, as libpcap's bpf_filter does. Throws a RangeError for an instruction it does not know.
 */
export function interpret(program: Program, frame: Uint8Array): number {
  const memory = new Uint32Array(MEMORY_WORDS);
  let a = 0;
  let x = 0;
  for (let at = 0; at < program.length; at++) {
    const { code, jt, jf, k } = program[at]!;
    const operation = OPERATIONS.get(code & ~FROM_X);
    if (operation !== undefined) {
      const result = operate(operation, a, (code & FROM_X) === 0 ? k : x);
      if (result === null) return 0;
      a = result;
      continue;
    }
    switch (code) {
      case OP.LD_W_ABS:
      case OP.LD_H_ABS:
      case OP.LD_B_ABS:
      case OP.LD_W_IND:
      case OP.LD_H_IND:
      case OP.LD_B_IND: {
        const indexed = (code & 0xe0) === 0x40;
        const size = [4, 2, 1][(code >> 3) & 3]!;
        const value = load(frame, indexed ? x + k : k, size);
        if (value === null) return 0;
        a = value;
        break;
      }
      case OP.LDX_MSH: {
        const value = load(frame, k, 1);
        if (value === null) return 0;
        x = (value & 0xf) * 4;
        break;
      }
      case OP.LD_IMM:
        a = k;
        break;
      case OP.LDX_IMM:
        x = k;
        break;
      case OP.LD_LEN:
        a = frame.length;
        break;
      case OP.LDX_LEN:
        x = frame.length;
        break;
      case OP.LD_MEM:
        a = memory[k]!;
        break;
      case OP.LDX_MEM:
        x = memory[k]!;
        break;
      case OP.ST:
        memory[k] = a;
        break;
      case OP.STX:
        memory[k] = x;
        break;
      case OP.NEG:
        a = -a >>> 0;
        break;
      case OP.TAX:
        x = a;
        break;
      case OP.TXA:
        a = x;
        break;
      case OP.JA:
        at += k;
        break;
      case OP.JEQ_K:
      case OP.JEQ_X:
      case OP.JGT_K:
      case OP.JGT_X:
      case OP.JGE_K:
      case OP.JGE_X:
      case OP.JSET_K:
      case OP.JSET_X:
        at += holds(code, a, (code & FROM_X) === 0 ? k : x) ? jt : jf;
        break;
      case OP.RET_K:
        return k;
      case OP.RET_A:
        return a;
      default:
        throw new RangeError(`instruction ${at} is unknown: ${opcodeName(code)}`);
    }
  }
  throw new RangeError("the program has no end");
}

/** Whether a program matches a frame. */
export function matches(program: Program, frame: Uint8Array): boolean {
  return interpret(program, frame) !== 0;
}

function holds(code: number, a: number, b: number): boolean {
  switch (code & ~FROM_X) {
    case OP.JEQ_K:
      return a === b;
    case OP.JGT_K:
      return a > b;
    case OP.JGE_K:
      return a >= b;
    default:
      return (a & b) !== 0;
  }
}

/** Big-endian value at `offset`, or null when it does not lie within the frame. */
function load(frame: Uint8Array, offset: number, size: number): number | null {
  if (offset + size > frame.length) return null;
  let value = 0;
  for (let index = 0; index < size; index++) value = ((value << 8) | frame[offset + index]!) >>> 0;
  return value;
}
