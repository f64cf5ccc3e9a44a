// Tests that say beforehand whether another test can be computed: that all it loads lies within the frame.
import type { Statement, Test } from "./blocks.js";
import { MEMORY_WORDS, OP } from "./program.js";

const SIZES: ReadonlyMap<number, number> = new Map([
  [OP.LD_W_ABS, 4],
  [OP.LD_H_ABS, 2],
  [OP.LD_B_ABS, 1],
  [OP.LD_W_IND, 4],
  [OP.LD_H_IND, 2],
  [OP.LD_B_IND, 1],
]);
/** Offsets above this are beyond every frame; below it, adding a constant does not wrap around. */
const FARTHEST = 0x3fffffff;

/** A test, and how it has to come out. */
export interface Guard {
  readonly test: Test;
  readonly wanted: boolean;
}

/**
 * Guards of a test, in the order in which they have to be asked: each can be computed if those before it came out
 * as wanted. Throws a RangeError when the test leaves no scratch word free.
 */
export function guardsOf(test: Test): Guard[] {
  const guards: Guard[] = [];
  const free = 1 + Math.max(-1, ...test.statements.map(({ code, k }) => (code === OP.ST ? k : -1)));
  for (const [index, { code, k }] of test.statements.entries()) {
    const before = test.statements.slice(0, index);
    const size = SIZES.get(code);
    if (code === OP.LDX_MSH) guards.push(reaches(k + 1));
    else if (code === OP.DIV_X || code === OP.MOD_X) {
      guards.push(asks([...before, { code: OP.TXA, k: 0 }], "JEQ", 0, false));
    } else if (size !== undefined && code < OP.LD_W_IND) guards.push(reaches(Math.min(k, FARTHEST) + size));
    else if (size !== undefined) guards.push(...reachesFromX(before, Math.min(k, FARTHEST) + size, free));
  }
  return guards;
}

function asks(
  statements: readonly Statement[],
  jump: Test["jump"],
  k: number | null,
  wanted: boolean,
): Guard {
  return { test: { kind: "test", statements, jump, k }, wanted };
}

/** The frame is at least so long. */
function reaches(end: number): Guard {
  return asks([{ code: OP.LD_LEN, k: 0 }], "JGE", end, true);
}

/** The frame is at least X + end long, where X is what the statements before leave in it. */
function reachesFromX(before: readonly Statement[], end: number, free: number): Guard[] {
  if (free >= MEMORY_WORDS) throw new RangeError("no scratch word is free");
  const x: readonly Statement[] = [...before, { code: OP.TXA, k: 0 }];
  const sum: readonly Statement[] = [
    ...x,
    { code: OP.ADD_K, k: end },
    { code: OP.ST, k: free },
    { code: OP.LD_LEN, k: 0 },
    { code: OP.LDX_MEM, k: free },
  ];
  return [asks(x, "JGT", FARTHEST, false), asks(sum, "JGE", null, true)];
}
