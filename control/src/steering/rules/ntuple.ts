// Expression to ntuple rules: a sieve in the card that lets through at least what the expression matches.
import { behindHeader, TooManyWays, ways, type Facts } from "./facts.js";
import type { FlowRule, Masked, MaskedWords } from "./flow-spec.js";
import { lower } from "./lower.js";
import type { Expression } from "./tree.js";
import { ETHER_PROTOCOLS } from "./words.js";

/** Rules that together match at least every frame of the expression; or why there are none. */
export type Sieve =
  | { readonly kind: "rules"; readonly rules: readonly FlowRule[] }
  | { readonly kind: "none"; readonly reason: string };

/** More rules than this are not made: no card has room for them. */
export const MAX_RULES = 256;
/** A range of ports becomes at most so many masks; if more are needed, one mask that covers it. */
const MAX_MASKS = 8;

const VLAN_TYPES = [0x8100, 0x88a8, 0x9100];
const IP = ETHER_PROTOCOLS["ip"]!;
const IP6 = ETHER_PROTOCOLS["ip6"]!;
const TRANSPORTS: ReadonlyMap<number, "tcp" | "udp" | "sctp"> = new Map([
  [6, "tcp"],
  [17, "udp"],
  [132, "sctp"],
]);

/** Lowers an expression to ntuple rules. The filter on the queue decides exactly, and passes the rest. */
export function sieve(tree: Expression): Sieve {
  if (tree.kind === "all") return { kind: "none", reason: "the whole card needs no rule" };
  const rules = new Map<string, FlowRule>();
  try {
    for (const facts of ways(lower(tree, ""))) {
      const found = rulesOf(facts);
      if (found === null) {
        return { kind: "none", reason: "a rule for it would match every frame" };
      }
      for (const rule of found) rules.set(JSON.stringify(rule), rule);
      if (rules.size > MAX_RULES) return { kind: "none", reason: `it needs more than ${MAX_RULES} rules` };
    }
  } catch (error) {
    if (!(error instanceof TooManyWays)) throw error;
    return { kind: "none", reason: "it has too many alternatives" };
  }
  if (rules.size === 0) return { kind: "none", reason: "no frame can match it" };
  return { kind: "rules", rules: withoutCovered([...rules.values()]) };
}

/** The rules for one way through the expression; null: nothing is known that a rule could say. */
function rulesOf(facts: Facts): FlowRule[] | null {
  const outer = facts.value(12, 2);
  if (outer === null || !VLAN_TYPES.includes(outer)) return describeNetwork(facts, 12, {});
  const id = facts.bits(14, 2);
  const idMask = id.mask & 0x0fff;
  const tag = idMask === 0 ? { vlanType: outer } : { vlanId: { value: id.value & idMask, mask: idMask } };
  const inner = facts.value(16, 2);
  // Behind a second tag cards differ in what they look at: only the outer tag counts.
  if (inner !== null && VLAN_TYPES.includes(inner)) return [{ type: "ether", ...macs(facts), ...tag }];
  return describeNetwork(facts, 16, tag) ?? [{ type: "ether", ...tag }];
}

function describeNetwork(facts: Facts, typeAt: number, tag: Partial<FlowRule>): FlowRule[] | null {
  const type = facts.value(typeAt, 2);
  const network = typeAt + 2;
  if (type === IP) {
    const found = describeIp(facts, tag, {
      version: 4,
      protocol: facts.value(network + 9, 1),
      source: words(facts, network + 12, 1),
      destination: words(facts, network + 16, 1),
      ports: behindHeader(network, network),
    });
    if (found !== null) return found;
  }
  if (type === IP6) {
    const found = describeIp(facts, tag, {
      version: 6,
      protocol: facts.value(network + 6, 1),
      source: words(facts, network + 8, 4),
      destination: words(facts, network + 24, 4),
      ports: network + 40,
    });
    if (found !== null) return found;
  }
  const tagged = Object.keys(tag).length > 0;
  // Behind a tag, cards differ in which type field they call the frame's.
  const etherType = type !== null && type > 1500 && !tagged ? { etherType: type } : {};
  const rule: FlowRule = { type: "ether", ...macs(facts), ...etherType, ...tag };
  return Object.keys(rule).length > 1 ? [rule] : null;
}

interface IpFields {
  readonly version: 4 | 6;
  readonly protocol: number | null;
  readonly source: MaskedWords | undefined;
  readonly destination: MaskedWords | undefined;
  /** Position of the source port. */
  readonly ports: number;
}

function describeIp(facts: Facts, tag: Partial<FlowRule>, fields: IpFields): FlowRule[] | null {
  const { version, protocol, source, destination, ports } = fields;
  const addresses = { ...(source && { source }), ...(destination && { destination }) };
  const transport = protocol === null ? undefined : TRANSPORTS.get(protocol);
  const sources = transport === undefined ? [null] : portMasks(facts, ports);
  const destinations = transport === undefined ? [null] : portMasks(facts, ports + 2);
  const anyPort = sources[0] === null && destinations[0] === null;
  if (transport === undefined || anyPort) {
    // Without ports, fragments belong to it too, and those a rule for a transport would miss.
    const about = { ...addresses, ...(protocol === null ? {} : { protocol }) };
    if (Object.keys(about).length === 0) return null;
    return [{ type: version === 4 ? "ip4" : "ip6", ...about, ...tag }];
  }
  const type = `${transport}${version}` as const;
  return sources.flatMap((sourcePort) =>
    destinations.map((destinationPort) => ({
      type,
      ...addresses,
      ...(sourcePort && { sourcePort }),
      ...(destinationPort && { destinationPort }),
      ...tag,
    })),
  );
}

/** Masks that cover what is known of a port; [null]: nothing is. */
function portMasks(facts: Facts, at: number): (Masked | null)[] {
  const { min, max } = facts.range(at, 2);
  if (min === 0 && max === 0xffff) return [null];
  const masks = coverRange(min, max);
  if (masks.length <= MAX_MASKS) return masks;
  let bits = 0;
  while (min >>> (16 - bits - 1) === max >>> (16 - bits - 1)) bits++;
  if (bits === 0) return [null];
  const mask = (0xffff << (16 - bits)) & 0xffff;
  return [{ value: min & mask, mask }];
}

/** The fewest value-and-mask pairs of 16 bits that match exactly the values from `first` to `last`. */
export function coverRange(first: number, last: number): Masked[] {
  const masks: Masked[] = [];
  let at = first;
  while (at <= last) {
    let size = at === 0 ? 0x10000 : at & -at;
    while (at + size - 1 > last) size /= 2;
    masks.push({ value: at, mask: 0xffff & ~(size - 1) });
    at += size;
  }
  return masks;
}

function words(facts: Facts, at: number, count: 1 | 4): MaskedWords | undefined {
  const bits = Array.from({ length: count }, (_, index) => facts.bits(at + 4 * index, 4));
  if (bits.every(({ mask }) => mask === 0)) return undefined;
  return { value: bits.map(({ value }) => value), mask: bits.map(({ mask }) => mask) };
}

function macs(facts: Facts): Partial<FlowRule> {
  const address = (at: number): MaskedWords | undefined => {
    const bits = [0, 1, 2, 3, 4, 5].map((index) => facts.bits(at + index, 1));
    if (bits.every(({ mask }) => mask === 0)) return undefined;
    return { value: bits.map(({ value }) => value), mask: bits.map(({ mask }) => mask) };
  };
  const destinationMac = address(0);
  const sourceMac = address(6);
  return { ...(destinationMac && { destinationMac }), ...(sourceMac && { sourceMac }) };
}

/** Leaves out rules whose frames another rule matches already. */
function withoutCovered(rules: readonly FlowRule[]): FlowRule[] {
  return rules.filter((rule, index) => {
    return !rules.some(
      (other, at) => at !== index && covers(other, rule) && (at < index || !covers(rule, other)),
    );
  });
}

/** Whether `wide` has the same type as `narrow`, and asks for nothing that `narrow` does not ask for. */
function covers(wide: FlowRule, narrow: FlowRule): boolean {
  if (wide.type !== narrow.type) return false;
  return (Object.keys(wide) as (keyof FlowRule)[]).every((key) => {
    const [asked, given] = [wide[key], narrow[key]];
    if (asked === undefined) return true;
    if (given === undefined) return false;
    if (typeof asked !== "object" || typeof given !== "object") return asked === given;
    const pairs = (field: Masked | MaskedWords): [number, number][] =>
      typeof field.value === "number"
        ? [[field.value, field.mask as number]]
        : field.value.map((value, index) => [value, (field.mask as readonly number[])[index]!]);
    const [a, b] = [pairs(asked), pairs(given)];
    return a.every(([value, mask], index) => {
      const [otherValue, otherMask] = b[index]!;
      return (mask & ~otherMask) === 0 && ((value ^ otherValue) & mask) === 0;
    });
  });
}
