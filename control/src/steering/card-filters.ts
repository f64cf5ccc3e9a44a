// The rules of a flow as filters of a card that our own driver has: a sieve, never the verdict.
import type { CardFilter } from "@bifurcate/addon";
import { formatIpv4 } from "./rules/addresses.js";
import type { FlowRule, Masked, MaskedWords } from "./rules/flow-spec.js";
import { sieve } from "./rules/ntuple.js";
import { compile } from "./rules/compile.js";

/** IP protocols (IANA) of the rules that a five-tuple filter can say. */
const PROTOCOLS: Readonly<Partial<Record<FlowRule["type"], number>>> = { tcp4: 6, udp4: 17, sctp4: 132 };

/**
 * The filters that send at least every frame of the flow to `queue`; null where the card's kinds (EtherType, five-tuple
 * of IPv4) cannot say it: then every queue gets its frames, as without them.
 */
export function cardFilters(flow: string, queue: number): CardFilter[] | null {
  const found = sieve(compile(flow).tree);
  if (found.kind === "none") return null;
  const filters = found.rules.map((rule) => filterOf(rule, queue));
  return filters.some((filter) => filter === null) ? null : (filters as CardFilter[]);
}

/** A rule as one filter, no wider and no narrower; null where it asks for what a filter cannot look at. */
function filterOf(rule: FlowRule, queue: number): CardFilter | null {
  const asked = Object.keys(rule).filter((key) => key !== "type");
  if (rule.type === "ether") {
    return asked.join() === "etherType" ? { etherType: rule.etherType!, queue } : null;
  }
  const protocol = PROTOCOLS[rule.type] ?? (rule.type === "ip4" ? rule.protocol : undefined);
  const known = ["source", "destination", "sourcePort", "destinationPort", "protocol"];
  if (protocol === undefined || asked.some((key) => !known.includes(key))) return null;
  const whole =
    [rule.source, rule.destination].every((field) => field === undefined || field.mask[0] === 0xffffffff) &&
    [rule.sourcePort, rule.destinationPort].every((field) => field === undefined || field.mask === 0xffff);
  if (!whole) return null;
  const address = (field: MaskedWords | undefined) =>
    field === undefined ? undefined : formatIpv4(field.value[0]!);
  const port = (field: Masked | undefined) => field?.value;
  return withoutUndefined({
    protocol,
    source: address(rule.source),
    destination: address(rule.destination),
    sourcePort: port(rule.sourcePort),
    destinationPort: port(rule.destinationPort),
    queue,
  });
}

function withoutUndefined(filter: { [K in keyof CardFilter]: CardFilter[K] | undefined }): CardFilter {
  return Object.fromEntries(
    Object.entries(filter).filter(([, value]) => value !== undefined),
  ) as unknown as CardFilter;
}
