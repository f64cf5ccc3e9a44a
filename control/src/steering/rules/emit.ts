// Tests to a classic BPF program: short-circuit jumps, all forward, also across more than 255 instructions.
import { guardsOf } from "./guards.js";
import type { Block, Statement, Test } from "./blocks.js";
import { MATCH, OP, type Instruction, type Opcode, type Program } from "./program.js";

/** A test with its two ways out, or an end. */
export type Node = { readonly kind: "return"; readonly match: boolean } | TestNode;

/** Statements, a jump, and where it leads; `yes` and `no` can be redirected by the optimiser. */
export interface TestNode {
  readonly kind: "test";
  statements: readonly Statement[];
  readonly jump: Test["jump"];
  readonly k: number | null;
  yes: Node;
  no: Node;
}

export const ACCEPT: Node = { kind: "return", match: true };
export const REJECT: Node = { kind: "return", match: false };

/**
 * Builds the graph of tests; it has no cycles. Returns its entry. A test that cannot be computed (its bytes lie
 * beyond the frame) leads to `failed`: to no match at once, unless something else is given.
 */
export function connect(block: Block, yes: Node = ACCEPT, no: Node = REJECT, failed: Node = REJECT): Node {
  switch (block.kind) {
    case "constant":
      return block.value ? yes : no;
    case "not":
      return connect(block.operand, no, yes, failed);
    case "and":
      return connect(block.left, connect(block.right, yes, no, failed), no, failed);
    case "or":
      return connect(block.left, yes, connect(block.right, yes, no, failed), failed);
    case "test": {
      const test: Node = { ...block, yes, no };
      // Where failing means no match, the program ends so by itself.
      if (failed === REJECT) return test;
      return guardsOf(block).reduceRight<Node>(
        (next, guard) =>
          guard.wanted ? { ...guard.test, yes: next, no: failed } : { ...guard.test, yes: failed, no: next },
        test,
      );
    }
  }
}

/** Every node that can be reached, each before the nodes it leads to, and the usual way straight on. */
export function order(entry: Node): Node[] {
  const seen = new Set<Node>();
  const finished: Node[] = [];
  const stack: { node: Node; left: Node[] }[] = [];
  const enter = (node: Node): void => {
    if (seen.has(node)) return;
    seen.add(node);
    // The way taken last is laid out first.
    stack.push({ node, left: node.kind === "test" ? [node.yes, node.no] : [] });
  };
  enter(entry);
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const child = top.left.pop();
    if (child === undefined) {
      finished.push(top.node);
      stack.pop();
    } else {
      enter(child);
    }
  }
  return finished.reverse();
}

const JUMPS: Readonly<Record<Test["jump"], { readonly k: Opcode; readonly x: Opcode }>> = {
  JEQ: { k: OP.JEQ_K, x: OP.JEQ_X },
  JGT: { k: OP.JGT_K, x: OP.JGT_X },
  JGE: { k: OP.JGE_K, x: OP.JGE_X },
  JSET: { k: OP.JSET_K, x: OP.JSET_X },
};

/** Lays the graph out as a program. */
export function emit(entry: Node): Program {
  const nodes = order(entry);
  // Which ways out of a test need an unconditional jump, because the target is too far for 8 bits.
  const far = new Map<Node, { yes: boolean; no: boolean }>();
  for (;;) {
    const starts = new Map<Node, number>();
    let length = 0;
    for (const node of nodes) {
      starts.set(node, length);
      const extra = far.get(node);
      length +=
        node.kind === "return"
          ? 1
          : node.statements.length + 1 + Number(extra?.yes ?? 0) + Number(extra?.no ?? 0);
    }
    let changed = false;
    for (const node of nodes) {
      if (node.kind === "return") continue;
      const extra = far.get(node) ?? { yes: false, no: false };
      const after = starts.get(node)! + node.statements.length + 1;
      for (const way of ["yes", "no"] as const) {
        if (!extra[way] && starts.get(node[way])! - after > 255) {
          extra[way] = true;
          far.set(node, extra);
          changed = true;
        }
      }
    }
    if (!changed) return layOut(nodes, starts, far);
  }
}

function layOut(
  nodes: readonly Node[],
  starts: ReadonlyMap<Node, number>,
  far: ReadonlyMap<Node, { yes: boolean; no: boolean }>,
): Program {
  const program: Instruction[] = [];
  for (const node of nodes) {
    if (node.kind === "return") {
      program.push({ code: OP.RET_K, jt: 0, jf: 0, k: node.match ? MATCH : 0 });
      continue;
    }
    for (const { code, k } of node.statements) program.push({ code, jt: 0, jf: 0, k });
    const extra = far.get(node) ?? { yes: false, no: false };
    const after = program.length + 1;
    // Behind the jump stand the long jumps, if any: first the one for yes, then the one for no.
    const jt = extra.yes ? 0 : starts.get(node.yes)! - after;
    const jf = extra.no ? Number(extra.yes) : starts.get(node.no)! - after;
    const opcodes = JUMPS[node.jump];
    program.push({ code: node.k === null ? opcodes.x : opcodes.k, jt, jf, k: node.k ?? 0 });
    for (const way of ["yes", "no"] as const) {
      if (extra[way])
        program.push({ code: OP.JA, jt: 0, jf: 0, k: starts.get(node[way])! - program.length - 1 });
    }
  }
  return program;
}
