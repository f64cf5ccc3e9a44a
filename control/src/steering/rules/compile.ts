// Filter expression to filter: tree, program, and everything else that is made from the tree.
import { BifurcateError } from "../../errors.js";
import { ACCEPT, connect, emit, REJECT, type Node } from "./emit.js";
import { TooManyWays, ways } from "./facts.js";
import { lower } from "./lower.js";
import { thread } from "./thread.js";
import { parse } from "./parser.js";
import { MAX_INSTRUCTIONS, type Program } from "./program.js";
import type { Expression } from "./tree.js";

/** A compiled filter expression. */
export interface Filter {
  /** The expression as it was written. */
  readonly source: string;
  readonly tree: Expression;
  /** Classic BPF; its value for a frame is 0 for no match. Equal to libpcap's for DLT_EN10MB. */
  readonly program: Program;
}

/**
 * Compiles a pcap-filter(7) expression, or `all`. Throws a BifurcateError with one of the E_FLOW_ codes;
 * those about the text carry its position.
 */
export function compile(source: string): Filter {
  const tree = parse(source);
  if (neverMatches(tree, source)) throw never(source);
  return { source, tree, program: compileTree(tree, source) };
}

/**
 * One filter that matches what any of the expressions matches on its own: a `vlan` in one moves nothing in
 * another, and a frame too short for one can still match the next. (Joining their texts by `or` would do neither.)
 * The filter's tree is the first that is `all`, or else their alternatives, and is for showing only.
 */
export function compileAny(sources: readonly string[]): Filter {
  const filters = sources.map(compile);
  const [first] = filters;
  if (first === undefined)
    throw new BifurcateError("E_NO_FLOW", { what: "compile flows", why: "there are none" });
  const single =
    filters.find(({ tree }) => tree.kind === "all") ?? (filters.length === 1 ? first : undefined);
  if (single !== undefined) return single;
  const source = sources.map((text) => `(${text})`).join(" or ");
  const blocks = filters.map((filter) => lower(filter.tree, filter.source));
  const span = { start: 0, end: source.length };
  const tree = filters
    .map((filter) => filter.tree)
    .reduce((left, right) => ({ kind: "or", left, right, span }));
  let entry: Node;
  try {
    entry = blocks.reduceRight<Node>((next, block) => connect(block, ACCEPT, next, next), REJECT);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw tooLarge(source, "its arithmetic leaves no room for the test of the frame's length");
  }
  return { source, tree, program: assemble(entry, source) };
}

/** Steps to spend on finding out that nothing can match: with more alternatives it is taken on trust. */
const PATIENCE = 20_000;

function neverMatches(tree: Expression, source: string): boolean {
  try {
    return ways(lower(tree, source), PATIENCE).next().done === true;
  } catch (error) {
    if (error instanceof TooManyWays) return false;
    throw error;
  }
}

function never(source: string): BifurcateError {
  return new BifurcateError("E_FLOW_NEVER", { what: `flow '${source}'`, why: "no packet can match it" });
}

/** Compiles a tree; `source` is the text it came from, for errors. */
export function compileTree(tree: Expression, source: string): Program {
  return assemble(connect(lower(tree, source)), source);
}

function assemble(graph: Node, source: string): Program {
  const entry = thread(graph);
  if (entry === REJECT) throw never(source);
  const program = emit(entry);
  if (program.length <= MAX_INSTRUCTIONS) return program;
  throw tooLarge(
    source,
    `its program has ${program.length} instructions, the kernel takes ${MAX_INSTRUCTIONS}`,
  );
}

function tooLarge(source: string, why: string): BifurcateError {
  return new BifurcateError("E_FLOW_TOO_LARGE", { what: `flow '${source}'`, why });
}
