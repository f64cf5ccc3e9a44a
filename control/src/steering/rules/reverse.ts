// The answers to a flow: the expression that matches a frame whose source and destination are swapped.
import { BifurcateError } from "../../errors.js";
import { parseDotted } from "./addresses.js";
import { compileTree, type Filter } from "./compile.js";
import { parse } from "./parser.js";
import type { Direction, Expression, Span } from "./tree.js";

const SWAPPED: Readonly<Record<Direction, Direction>> = {
  src: "dst",
  dst: "src",
  either: "either",
  both: "both",
};

/** What a lease may send when it may send "own" frames. */
export interface OwnSender {
  /** The card's Ethernet address: the only source. */
  readonly mac: string;
  /** The card's addresses, IPv4 and IPv6: the only sources. */
  readonly addresses: readonly string[];
}

/** Turned round: src becomes dst. null where bytes are named, of which nobody knows what they stand for. */
export function reverse(tree: Expression): Expression | null {
  switch (tree.kind) {
    case "and":
    case "or": {
      const [left, right] = [reverse(tree.left), reverse(tree.right)];
      return left === null || right === null ? null : { ...tree, left, right };
    }
    case "not": {
      const operand = reverse(tree.operand);
      return operand === null ? null : { ...tree, operand };
    }
    case "net4":
    case "net6":
    case "mac":
    case "port":
      return { ...tree, direction: SWAPPED[tree.direction] };
    case "all":
    case "protocol":
    case "proto":
    case "size":
      return tree;
    case "broadcast":
    case "multicast":
    case "byte":
    case "vlan":
    case "mpls":
    case "pppoed":
    case "pppoes":
    case "llc":
    case "relation":
      return null;
  }
}

const NOWHERE: Span = { start: 0, end: 0 };

function all(kind: "and" | "or", parts: readonly Expression[]): Expression {
  return parts.reduce((left, right) => ({ kind, left, right, span: NOWHERE }));
}

/**
 * What a lease of these flows may send as "own": from the card's Ethernet address and one of its addresses, and such
 * that the answer to it would belong to the lease. No ARP, since the kernel answers for the addresses; no fragments
 * and no IPv6 extension header before one, since only the first of them has ports to check.
 *
 * @throws E_LEASE_UNSUPPORTED for a flow that cannot be turned round, or a card without an address.
 */
export function ownTransmit(flows: readonly string[], from: OwnSender): Filter {
  const what = `check what a lease of '${flows.join("', '")}' sends`;
  const turned = flows.map((text) => {
    const tree = reverse(parse(text));
    if (tree !== null) return tree;
    throw new BifurcateError("E_LEASE_UNSUPPORTED", {
      what,
      why: `'${text}' looks at bytes, tags or groups, so nobody can tell which frames answer it`,
      next: "Ask for transmit 'none', or for 'raw' where the policy gives it.",
    });
  });
  const sources = from.addresses.map(addressTest);
  if (sources.length === 0) {
    throw new BifurcateError("E_LEASE_UNSUPPORTED", {
      what,
      why: "the card has no IP address, and 'own' frames come from one",
      next: "Give the card an address, or ask for transmit 'none' or 'raw'.",
    });
  }
  const tree = all("and", [
    parse(`ether src ${from.mac}`),
    all("or", sources),
    parse("not (ip[6:2] & 0x3fff != 0) and not ip6[6] = 44"),
    all("or", turned.some((each) => each.kind === "all") ? [parse("ip or ip6")] : turned),
  ]);
  const source = `answers to ${flows.join(" or ")}`;
  return { source, tree, program: compileTree(tree, source) };
}

function addressTest(text: string): Expression {
  return parse(parseDotted(text) === null ? `ip6 src host ${text}` : `ip src host ${text}`);
}
