// A flow's syntax tree for a person: one line a node, what is said in words, what is inside it further in.

import type { Arithmetic, Expression, Primitive } from "@bifurcate/control/steering/rules/tree";

const octets = (word: number): string => [24, 16, 8, 0].map((shift) => (word >>> shift) & 255).join(".");

function groups(words: readonly number[]): string {
  return words.flatMap((word) => [(word >>> 16).toString(16), (word & 0xffff).toString(16)]).join(":");
}

/** Bits of a mask, or the mask itself where its bits are not in one piece. */
function prefixOf(words: readonly number[], whole: (words: readonly number[]) => string): string {
  const bits = words.map((word) => (word >>> 0).toString(2).padStart(32, "0")).join("");
  return /^1*0*$/.test(bits) ? `/${bits.replace(/0/g, "").length}` : ` mask ${whole(words)}`;
}

const DIRECTION = {
  src: "source ",
  dst: "destination ",
  either: "source or destination ",
  both: "source and destination ",
};

function arithmetic(value: Arithmetic): string {
  switch (value.kind) {
    case "number":
      return `${value.value}`;
    case "length":
      return "the frame's length";
    case "load":
      return `${value.layer}[${arithmetic(value.offset)}:${value.size}]`;
    case "binary":
      return `(${arithmetic(value.left)} ${value.operator} ${arithmetic(value.right)})`;
    case "negate":
      return `-${arithmetic(value.operand)}`;
  }
}

/** What a primitive asks of a frame. */
function primitive(node: Primitive): string {
  switch (node.kind) {
    case "all":
      return "every frame of the card";
    case "protocol":
      return `protocol ${node.protocol}`;
    case "net4": {
      const mask = prefixOf([node.mask], ([word]) => octets(word ?? 0));
      const layer = node.layer === "any" ? "IPv4, ARP or RARP" : node.layer;
      return `${DIRECTION[node.direction]}address ${octets(node.address)}${mask} (${layer})`;
    }
    case "net6":
      return `${DIRECTION[node.direction]}address ${groups(node.address)}${prefixOf(node.mask, groups)}`;
    case "mac":
      return `${DIRECTION[node.direction]}MAC ${node.address.map((byte) => byte.toString(16).padStart(2, "0")).join(":")}`;
    case "port": {
      const ports = node.first === node.last ? `port ${node.first}` : `ports ${node.first} to ${node.last}`;
      return `${DIRECTION[node.direction]}${ports} of ${node.transport === "any" ? "TCP, UDP or SCTP" : node.transport.toUpperCase()}`;
    }
    case "proto":
      return `${node.layer === "any" ? "IPv4 or IPv6" : node.layer} protocol number ${node.number}`;
    case "broadcast":
      return "Ethernet broadcast";
    case "multicast":
      return `${node.layer} multicast`;
    case "size":
      return `a frame of ${node.comparison} ${node.value} bytes`;
    case "byte":
      return `byte ${node.offset} of the frame ${node.comparison} ${node.value}`;
    case "vlan":
      return node.id === null ? "any VLAN tag" : `VLAN ${node.id}`;
    case "mpls":
      return node.label === null ? "any MPLS label" : `MPLS label ${node.label}`;
    case "pppoed":
      return "PPPoE discovery";
    case "pppoes":
      return node.session === null ? "any PPPoE session" : `PPPoE session ${node.session}`;
    case "llc":
      return node.type === null ? "LLC" : `LLC ${node.type}`;
    case "relation":
      return `${arithmetic(node.left)} ${node.comparison} ${arithmetic(node.right)}`;
  }
}

/** Members of a chain of the same operator, so that a and b and c stand side by side. */
function members(node: Expression, kind: "and" | "or"): Expression[] {
  return node.kind === kind ? [...members(node.left, kind), ...members(node.right, kind)] : [node];
}

/** Renders a tree, `depth` steps of two blanks further in. */
export function renderTree(node: Expression, depth = 0): string {
  const line = (text: string): string => `${"  ".repeat(depth)}${text}\n`;
  if (node.kind === "and" || node.kind === "or") {
    const inside = members(node, node.kind).map((each) => renderTree(each, depth + 1));
    return line(node.kind === "and" ? "all of" : "any of") + inside.join("");
  }
  if (node.kind === "not") return line("not") + renderTree(node.operand, depth + 1);
  return line(primitive(node));
}
