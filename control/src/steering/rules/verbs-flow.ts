// A flow rule of an RDMA card: the bytes of struct ibv_flow_attr and its specifications (infiniband/verbs.h).
import type { FlowRule, Masked, MaskedWords } from "./flow-spec.js";

/** enum ibv_flow_spec_type. */
const SPEC = { eth: 0x20, ip6: 0x31, ip4: 0x32, tcp: 0x40, udp: 0x41 } as const;
/** enum ibv_flow_attr_type: what its specifications say; every frame that no other rule steers. */
const ATTR = { normal: 0, allDefault: 1 } as const;

/** sizeof(struct ibv_flow_attr), and offsets of its members. */
const ATTR_SIZE = 20;
const AT_ATTR = { type: 4, size: 8, specs: 12 } as const;

/**
 * A specification: sizeof its struct, and where the filters of its value and of its mask stand. ip4 is struct
 * ibv_flow_spec_ipv4_ext, since the plain one cannot name a protocol.
 */
const LAYOUT = {
  eth: { size: 40, value: 6, mask: 22 },
  ip4: { size: 32, value: 8, mask: 20 },
  ip6: { size: 88, value: 8, mask: 48 },
  transport: { size: 16, value: 6, mask: 10 },
} as const;

const ETHER_TYPE = { 4: 0x0800, 6: 0x86dd } as const;
const PROTOCOL = { tcp: 6, udp: 17, sctp: 132 } as const;

/** The most that a rule can be asked for: what ntuple.ts makes of an expression. */
const TYPES: Readonly<
  Record<FlowRule["type"], { readonly version?: 4 | 6; readonly transport?: keyof typeof PROTOCOL }>
> = {
  tcp4: { version: 4, transport: "tcp" },
  udp4: { version: 4, transport: "udp" },
  sctp4: { version: 4, transport: "sctp" },
  tcp6: { version: 6, transport: "tcp" },
  udp6: { version: 6, transport: "udp" },
  sctp6: { version: 6, transport: "sctp" },
  ip4: { version: 4 },
  ip6: { version: 6 },
  ether: {},
};

/** One specification while it is written. Fields of a filter are in network byte order. */
class Specification {
  readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(
    type: number,
    private readonly at: { readonly size: number; readonly value: number; readonly mask: number },
  ) {
    this.bytes = new Uint8Array(at.size);
    this.view = new DataView(this.bytes.buffer);
    this.view.setUint32(0, type, true);
    this.view.setUint16(4, at.size, true);
  }

  put8(field: number, value: number): void {
    this.bytes[this.at.value + field] = value;
    this.bytes[this.at.mask + field] = 0xff;
  }

  put16(field: number, masked: Masked | undefined): void {
    if (masked === undefined) return;
    this.view.setUint16(this.at.value + field, masked.value);
    this.view.setUint16(this.at.mask + field, masked.mask);
  }

  putBytes(field: number, masked: MaskedWords | undefined): void {
    if (masked === undefined) return;
    this.bytes.set(masked.value, this.at.value + field);
    this.bytes.set(masked.mask, this.at.mask + field);
  }

  putWords(field: number, masked: MaskedWords | undefined): void {
    for (const [index, word] of (masked?.value ?? []).entries()) {
      this.view.setUint32(this.at.value + field + 4 * index, word);
      this.view.setUint32(this.at.mask + field + 4 * index, masked!.mask[index]!);
    }
  }

  /** Whether it asks for anything. */
  get asks(): boolean {
    return this.bytes.subarray(this.at.mask).some((byte) => byte !== 0);
  }
}

/**
 * A rule as the card takes it; its port is filled in where it is made. It lets through at least what `rule` does: ports
 * of SCTP have no specification, nor has the type of a VLAN tag. null: nothing would be left to say.
 */
export function encodeVerbsRule(rule: FlowRule): Uint8Array | null {
  const { version, transport } = TYPES[rule.type];
  const specs = [ethernet(rule, version)];
  if (version !== undefined) specs.push(internet(rule, version, transport));
  if (transport === "tcp" || transport === "udp") {
    const spec = new Specification(SPEC[transport], LAYOUT.transport);
    spec.put16(0, rule.destinationPort);
    spec.put16(2, rule.sourcePort);
    specs.push(spec);
  }
  if (!specs.some((spec) => spec.asks)) return null;
  return attribute(ATTR.normal, specs);
}

/** The rule for every frame that no other rule of the card steers: those for the kernel too. */
export function everyFrame(): Uint8Array {
  return attribute(ATTR.allDefault, []);
}

function ethernet(rule: FlowRule, version: 4 | 6 | undefined): Specification {
  const spec = new Specification(SPEC.eth, LAYOUT.eth);
  spec.putBytes(0, rule.destinationMac);
  spec.putBytes(6, rule.sourceMac);
  const type = version === undefined ? rule.etherType : ETHER_TYPE[version];
  spec.put16(12, type === undefined ? undefined : { value: type, mask: 0xffff });
  spec.put16(14, rule.vlanId);
  return spec;
}

function internet(
  rule: FlowRule,
  version: 4 | 6,
  transport: keyof typeof PROTOCOL | undefined,
): Specification {
  const protocol = transport === undefined ? rule.protocol : PROTOCOL[transport];
  const spec =
    version === 4 ? new Specification(SPEC.ip4, LAYOUT.ip4) : new Specification(SPEC.ip6, LAYOUT.ip6);
  const at = version === 4 ? { destination: 4, protocol: 8 } : { destination: 16, protocol: 36 };
  spec.putWords(0, rule.source);
  spec.putWords(at.destination, rule.destination);
  if (protocol !== undefined) spec.put8(at.protocol, protocol);
  return spec;
}

function attribute(type: number, specs: readonly Specification[]): Uint8Array {
  const size = specs.reduce((sum, { bytes }) => sum + bytes.length, ATTR_SIZE);
  const whole = new Uint8Array(size);
  const view = new DataView(whole.buffer);
  view.setUint32(AT_ATTR.type, type, true);
  view.setUint16(AT_ATTR.size, size, true);
  view.setUint8(AT_ATTR.specs, specs.length);
  let at = ATTR_SIZE;
  for (const { bytes } of specs) {
    whole.set(bytes, at);
    at += bytes.length;
  }
  return whole;
}
