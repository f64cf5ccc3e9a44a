// Filter expression to filter: tree, program, and everything else that is made from the tree.
import { BifurcateError } from "../../errors.js";
import { connect, emit, REJECT } from "./emit.js";
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
  const entry = thread(connect(lower(tree, source)));
  if (entry === REJECT) throw never(source);
  const program = emit(entry);
  if (program.length > MAX_INSTRUCTIONS) {
    const why = `its program has ${program.length} instructions, the kernel takes ${MAX_INSTRUCTIONS}`;
    throw new BifurcateError("E_FLOW_TOO_LARGE", { what: `flow '${source}'`, why });
  }
  return program;
}
