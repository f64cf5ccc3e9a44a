// Rules: a pcap-filter(7) expression, its tree, and the programs and rules that come from it.
export { compile, compileAny, type Filter } from "./compile.js";
export { parse } from "./parser.js";
export type * from "./tree.js";
export { encodeProgram, formatProgram, type Instruction, type Program } from "./program.js";
export { interpret, matches } from "./interpret.js";
export { COUNTER, xdpProgram, type XdpSource, type XdpTarget } from "./xdp.js";
export { HINTS, writeHints, type Hint } from "./hints.js";
export * from "./lease-programs.js";
export { ownTransmit, reverse, type OwnSender } from "./reverse.js";
export { PASS_MARK, passMarkProgram, socketFilterProgram, tcDropProgram } from "./skb.js";
export { explain } from "./explain.js";
export { contains, matchesSocket, overlap, socketFlows, type Overlap } from "./overlap.js";
export { sieve, type Sieve } from "./ntuple.js";
export { encodeRule, type FlowRule } from "./flow-spec.js";
export { ruleMatches } from "./ntuple-model.js";
