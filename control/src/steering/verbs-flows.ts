// Flows to flow rules of an RDMA card.
import { BifurcateError } from "../errors.js";
import { compile, sieve } from "./rules/index.js";
import { encodeVerbsRule, everyFrame } from "./rules/verbs-flow.js";

/**
 * The rules that bring at least the frames of every expression to a queue pair of raw packets, each a struct
 * ibv_flow_attr with its specifications.
 * @throws E_FLOW_SYNTAX and the like; E_FLOW_NO_RULE for an expression that no such rule says.
 */
export function verbsRules(what: string, flows: readonly string[]): Uint8Array[] {
  return flows.flatMap((text) => {
    const { tree } = compile(text);
    if (tree.kind === "all") return [everyFrame()];
    const cannot = (why: string): BifurcateError =>
      new BifurcateError("E_FLOW_NO_RULE", { what, why: `'${text}': ${why}`, data: { flow: text } });
    const found = sieve(tree);
    if (found.kind === "none") throw cannot(found.reason);
    return found.rules.map((rule) => {
      const bytes = encodeVerbsRule(rule);
      if (bytes === null) throw cannot("a rule for it would match every frame");
      return bytes;
    });
  });
}
