// A flow for the planner, made from its expression by the rules.
import type { SocketFacts } from "../kernel.js";
import type { CompileFlow, Flow } from "./flow.js";
import { formatIpv4, formatIpv6, formatMac } from "./rules/addresses.js";
import {
  compile,
  encodeRule,
  matchesSocket,
  overlap,
  sieve,
  type Arithmetic,
  type Expression,
  type FlowRule,
} from "./rules/index.js";

/** EtherTypes of VLAN tags: IEEE 802.1Q, 802.1ad, and the one in use before 802.1ad. */
const TAGS: ReadonlySet<number> = new Set([0x8100, 0x88a8, 0x9100]);

class CompiledFlow implements Flow {
  readonly text: string;
  readonly all: boolean;
  readonly vlan: boolean;
  readonly ntuple: Flow["ntuple"];
  readonly tree: Expression;

  constructor(text: string) {
    const { tree } = compile(text);
    const found = sieve(tree);
    this.text = text;
    this.tree = tree;
    this.all = tree.kind === "all";
    this.vlan = looksAtTags(tree);
    this.ntuple =
      found.kind === "none"
        ? { why: found.reason }
        : {
            rules: found.rules.map((rule) => ({
              words: ruleWords(rule),
              forQueue: (queue, location) => encodeRule(rule, queue, location).bytes,
            })),
          };
  }

  overlaps(other: Flow): boolean {
    if (!(other instanceof CompiledFlow)) return this.all || other.all || this.text === other.text;
    return overlap(this.tree, other.tree).kind === "overlaps";
  }

  takes(socket: SocketFacts, vlans: readonly number[]): boolean {
    return matchesSocket(this.tree, socket, vlans).kind === "overlaps";
  }
}

/** A rule in the words of `ethtool -N`, e.g. "udp4 dst-port 53"; masks of part of a field after a slash. */
function ruleWords(rule: FlowRule): string {
  const say = (word: string, value: string, mask: string, whole: string): string =>
    mask === whole ? `${word} ${value}` : `${word} ${value}/${mask}`;
  const address = (word: string, field: FlowRule["source"]): string[] => {
    if (field === undefined) return [];
    const four = field.value.length === 1;
    const text = (words: readonly number[]): string => (four ? formatIpv4(words[0] ?? 0) : formatIpv6(words));
    const whole = text(field.value.map(() => 0xffffffff));
    return [say(word, text(field.value), text(field.mask), whole)];
  };
  const mac = (word: string, field: FlowRule["sourceMac"]): string[] =>
    field === undefined
      ? []
      : [say(word, formatMac(field.value), formatMac(field.mask), "ff:ff:ff:ff:ff:ff")];
  const number = (word: string, field: FlowRule["sourcePort"], whole: number): string[] =>
    field === undefined
      ? []
      : [say(word, `${field.value}`, `0x${field.mask.toString(16)}`, `0x${whole.toString(16)}`)];
  return [
    rule.type,
    ...mac("src", rule.sourceMac),
    ...mac("dst", rule.destinationMac),
    ...(rule.etherType === undefined ? [] : [`proto 0x${rule.etherType.toString(16)}`]),
    ...address("src-ip", rule.source),
    ...address("dst-ip", rule.destination),
    ...(rule.protocol === undefined ? [] : [`l4proto ${rule.protocol}`]),
    ...number("src-port", rule.sourcePort, 0xffff),
    ...number("dst-port", rule.destinationPort, 0xffff),
    ...(rule.vlanType === undefined ? [] : [`vlan-etype 0x${rule.vlanType.toString(16)}`]),
    ...number("vlan", rule.vlanId, 0xfff),
  ].join(" ");
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
