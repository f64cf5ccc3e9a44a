// An expression in words.
import { formatIpv4, formatIpv6, formatMac, prefixLength } from "./addresses.js";
import type { Arithmetic, Direction, Expression, Primitive } from "./tree.js";

/** Says in plain words which frames an expression matches. */
export function explain(tree: Expression): string {
  return `frames ${words(tree, false)}`;
}

function words(tree: Expression, nested: boolean): string {
  switch (tree.kind) {
    case "and":
    case "or": {
      const text = `${operand(tree.left, tree.kind)} ${tree.kind} ${operand(tree.right, tree.kind)}`;
      return nested ? `(${text})` : text;
    }
    case "not":
      return `not ${words(tree.operand, true)}`;
    default:
      return primitive(tree);
  }
}

/** A chain of the same word needs no parentheses. */
function operand(tree: Expression, word: "and" | "or"): string {
  return words(tree, tree.kind !== word);
}

const DIRECTIONS: Readonly<Record<Direction, string>> = {
  src: "from",
  dst: "to",
  either: "from or to",
  both: "both from and to",
};

const LAYERS = { ip: "IPv4", ip6: "IPv6", arp: "ARP", rarp: "RARP" } as const;

function primitive(node: Primitive): string {
  switch (node.kind) {
    case "all":
      return "of any kind: the whole card";
    case "protocol":
      return `of ${LAYERS[node.protocol as keyof typeof LAYERS] ?? node.protocol.toUpperCase()}`;
    case "net4": {
      const layer = node.layer === "any" ? "IPv4 (or ARP, RARP)" : LAYERS[node.layer];
      const bits = prefixLength([node.mask]);
      const mask =
        node.mask === 0xffffffff ? "" : bits === null ? ` mask ${formatIpv4(node.mask)}` : `/${bits}`;
      return `${DIRECTIONS[node.direction]} the ${layer} address ${formatIpv4(node.address)}${mask}`;
    }
    case "net6": {
      const bits = prefixLength(node.mask) ?? 128;
      return `${DIRECTIONS[node.direction]} the IPv6 address ${formatIpv6(node.address)}${bits === 128 ? "" : `/${bits}`}`;
    }
    case "mac":
      return `${DIRECTIONS[node.direction]} the Ethernet address ${formatMac(node.address)}`;
    case "port": {
      const transport = node.transport === "any" ? "TCP, UDP or SCTP" : node.transport.toUpperCase();
      const ports = node.first === node.last ? `port ${node.first}` : `ports ${node.first} to ${node.last}`;
      return `${DIRECTIONS[node.direction]} ${transport} ${ports}`;
    }
    case "proto": {
      if (node.layer === "ether") return `with EtherType 0x${node.number.toString(16)}`;
      const layer =
        node.layer === "any" ? "IPv4 or IPv6" : (LAYERS[node.layer as "ip"] ?? node.layer.toUpperCase());
      return `of ${layer} with protocol ${node.number}`;
    }
    case "broadcast":
      return "to the Ethernet broadcast address";
    case "multicast":
      return `to ${node.layer === "ether" ? "an Ethernet" : `an ${LAYERS[node.layer]}`} multicast address`;
    case "size":
      return node.comparison === "<=" ? `of at most ${node.value} bytes` : `of at least ${node.value} bytes`;
    case "byte":
      return `whose byte ${node.offset} is ${node.comparison} ${node.value}`;
    case "vlan":
      return node.id === null
        ? "with a VLAN tag (and behind it)"
        : `with VLAN tag ${node.id} (and behind it)`;
    case "mpls":
      return node.label === null
        ? "with an MPLS label (and behind it)"
        : `with MPLS label ${node.label} (and behind it)`;
    case "pppoed":
      return "of PPPoE discovery";
    case "pppoes":
      return node.session === null
        ? "in a PPPoE session (and inside it)"
        : `in PPPoE session ${node.session} (and inside it)`;
    case "llc":
      return node.type === null
        ? "with an LLC header"
        : `with an LLC header of type ${node.type.toUpperCase()}`;
    case "relation":
      return `where ${arithmetic(node.left)} ${node.comparison} ${arithmetic(node.right)}`;
  }
}

function arithmetic(value: Arithmetic): string {
  switch (value.kind) {
    case "number":
      return String(value.value);
    case "length":
      return "the length";
    case "load":
      return `${value.layer}[${arithmetic(value.offset)}${value.size === 1 ? "" : `:${value.size}`}]`;
    case "negate":
      return `-${arithmetic(value.operand)}`;
    case "binary":
      return `(${arithmetic(value.left)} ${value.operator} ${arithmetic(value.right)})`;
  }
}
