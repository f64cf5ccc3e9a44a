// The optimiser: tests whose outcome is known on a way are skipped on it, values at hand are not loaded again.
import { order, REJECT, type Node, type TestNode } from "./emit.js";
import { OP } from "./program.js";

/** What is known of a value: it was loaded, so it lies within the frame, and its range. */
interface Known {
  readonly min: number;
  readonly max: number;
  readonly not: ReadonlySet<number>;
}

/** By the statements that compute a value. */
type Facts = ReadonlyMap<string, Known>;

const ANYTHING: Known = { min: 0, max: 0xffffffff, not: new Set() };
/** More exceptions than this are not remembered of one value. */
const MAX_EXCEPTIONS = 64;

/**
 * Simplifies a graph of tests in place, and returns its entry. The verdict stays the same for every frame: a
 * test is skipped only where the value it would load has been loaded before.
 */
export function thread(entry: Node): Node {
  followKnown(entry);
  const kept = dropFutile(entry);
  reuseLoads(kept);
  return kept;
}

/** A test from which every way leads to no match is no match itself: its load can only fail to the same end. */
function dropFutile(entry: Node): Node {
  const replaced = (node: Node): Node =>
    node.kind === "test" && node.yes === REJECT && node.no === REJECT ? REJECT : node;
  for (const node of order(entry).reverse()) {
    if (node.kind !== "test") continue;
    node.yes = replaced(node.yes);
    node.no = replaced(node.no);
  }
  return replaced(entry);
}

/** What a test computes: statements never depend on what was computed before them. */
function keyOf(node: TestNode): string {
  return node.statements.map(({ code, k }) => `${code}:${k}`).join(" ");
}

/** Redirects ways out to where they will lead anyway. */
function followKnown(entry: Node): void {
  const incoming = new Map<Node, Facts>([[entry, new Map()]]);
  for (const node of order(entry)) {
    const facts = incoming.get(node);
    // Nodes that all ways now go around have none.
    if (facts === undefined || node.kind !== "test") continue;
    for (const way of ["yes", "no"] as const) {
      const after = learn(facts, node, way === "yes");
      let target = node[way];
      while (target.kind === "test") {
        const outcome = decide(after, target);
        if (outcome === null) break;
        target = outcome ? target.yes : target.no;
      }
      node[way] = target;
      const before = incoming.get(target);
      incoming.set(target, before === undefined ? after : common(before, after));
    }
  }
}

function learn(facts: Facts, node: TestNode, holds: boolean): Facts {
  const key = keyOf(node);
  const known = facts.get(key) ?? ANYTHING;
  const learned = new Map(facts);
  learned.set(key, node.k === null ? known : narrow(known, node.jump, node.k, holds));
  return learned;
}

function narrow(known: Known, jump: TestNode["jump"], k: number, holds: boolean): Known {
  const { min, max, not } = known;
  switch (jump) {
    case "JEQ":
      if (holds) return { min: k, max: k, not: new Set() };
      return not.size < MAX_EXCEPTIONS ? { min, max, not: new Set(not).add(k) } : known;
    case "JGT":
      return holds ? { min: Math.max(min, k + 1), max, not } : { min, max: Math.min(max, k), not };
    case "JGE":
      return holds ? { min: Math.max(min, k), max, not } : { min, max: Math.min(max, k - 1), not };
    case "JSET":
      return known;
  }
}

/** The outcome of a test if it is known, else null. */
function decide(facts: Facts, node: TestNode): boolean | null {
  const known = facts.get(keyOf(node));
  if (known === undefined || node.k === null) return null;
  const { min, max, not } = known;
  const { k } = node;
  switch (node.jump) {
    case "JEQ":
      if (min === max) return min === k;
      return k < min || k > max || not.has(k) ? false : null;
    case "JGT":
      return min > k ? true : max <= k ? false : null;
    case "JGE":
      return min >= k ? true : max < k ? false : null;
    case "JSET":
      return min === max ? (min & k) !== 0 : null;
  }
}

/** What is known on both of two ways. */
function common(a: Facts, b: Facts): Facts {
  const both = new Map<string, Known>();
  for (const [key, one] of a) {
    const other = b.get(key);
    if (other === undefined) continue;
    const excludes = (known: Known, value: number): boolean =>
      known.not.has(value) || value < known.min || value > known.max;
    const not = new Set(
      [...one.not, ...other.not].filter((value) => excludes(one, value) && excludes(other, value)),
    );
    both.set(key, { min: Math.min(one.min, other.min), max: Math.max(one.max, other.max), not });
  }
  return both;
}

/** The statements whose value stands in A, and the offset of the header length that stands in X. */
interface Registers {
  readonly a: string | null;
  readonly x: number | null;
}

/** Drops loads of what stands in the registers already, whichever way a test was reached. */
function reuseLoads(entry: Node): void {
  const incoming = new Map<Node, Registers>([[entry, { a: null, x: null }]]);
  for (const node of order(entry)) {
    if (node.kind !== "test") continue;
    const key = keyOf(node);
    const before = incoming.get(node)!;
    const x = node.statements.reduce<number | null>((now, { code, k }) => {
      if (code === OP.LDX_MSH) return k;
      return code === OP.TAX || code === OP.LDX_MEM ? null : now;
    }, before.x);
    if (before.a === key) {
      node.statements = [];
    } else if (node.statements[0]?.code === OP.LDX_MSH && node.statements[0].k === before.x) {
      node.statements = node.statements.slice(1);
    }
    const after: Registers = { a: node.k === null ? null : key, x };
    for (const target of [node.yes, node.no]) {
      const known = incoming.get(target);
      incoming.set(target, {
        a: known === undefined || known.a === after.a ? after.a : null,
        x: known === undefined || known.x === after.x ? after.x : null,
      });
    }
  }
}
