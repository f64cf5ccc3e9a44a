// A flow for the planner, made from its expression by the rules.
import type { CompileFlow, Flow } from "./flow.js";
import { compile, type Filter } from "./rules/compile.js";
import type { Arithmetic, Expression } from "./rules/tree.js";

/** EtherTypes of VLAN tags: IEEE 802.1Q, 802.1ad, and the one in use before 802.1ad. */
const TAGS: ReadonlySet<number> = new Set([0x8100, 0x88a8, 0x9100]);

class CompiledFlow implements Flow {
  readonly text: string;
  readonly all: boolean;
  readonly vlan: boolean;
  readonly ntuple: Flow["ntuple"];
  readonly filter: Filter;

  constructor(text: string) {
    this.text = text;
    this.filter = compile(text);
    this.all = this.filter.tree.kind === "all";
    this.vlan = looksAtTags(this.filter.tree);
    this.ntuple = { why: "not implemented" };
  }

  overlaps(other: Flow): boolean {
    return this.all || other.all || this.text === other.text;
  }

  takes(): boolean {
    return this.all;
  }
}

/** Compiles an expression; errors E_FLOW_SYNTAX, E_FLOW_UNSUPPORTED, E_FLOW_NAME, E_FLOW_TOO_LARGE, E_FLOW_NEVER. */
export const compileFlow: CompileFlow = (text) => new CompiledFlow(text);

/** Whether an expression names VLAN tags, or bytes where a tag may stand. */
function looksAtTags(tree: Expression): boolean {
  switch (tree.kind) {
    case "and":
    case "or":
      return looksAtTags(tree.left) || looksAtTags(tree.right);
    case "not":
      return looksAtTags(tree.operand);
    case "vlan":
    case "byte":
      return true;
    case "proto":
      return tree.layer === "ether" && TAGS.has(tree.number);
    case "relation":
      return loadsEthernet(tree.left) || loadsEthernet(tree.right);
    default:
      return false;
  }
}

function loadsEthernet(value: Arithmetic): boolean {
  switch (value.kind) {
    case "load":
      return value.layer === "ether" || loadsEthernet(value.offset);
    case "binary":
      return loadsEthernet(value.left) || loadsEthernet(value.right);
    case "negate":
      return loadsEthernet(value.operand);
    default:
      return false;
  }
}
