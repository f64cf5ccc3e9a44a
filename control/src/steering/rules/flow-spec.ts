// An ethtool flow rule: its fields, and the bytes of struct ethtool_rx_flow_spec (linux/ethtool.h).
import type { NtupleRule } from "../../kernel.js";

/** Flow types (linux/ethtool.h). */
export const FLOW = {
  tcp4: 0x01,
  udp4: 0x02,
  sctp4: 0x03,
  tcp6: 0x05,
  udp6: 0x06,
  sctp6: 0x07,
  ip4: 0x0d,
  ip6: 0x0e,
  ether: 0x12,
} as const;
/** The extension fields are used (linux/ethtool.h). */
const FLOW_EXT = 0x80000000;

/** A value under a mask; bits outside the mask are 0. */
export interface Masked {
  readonly value: number;
  readonly mask: number;
}

/** Six bytes, or 16 in four words, under a mask. */
export interface MaskedWords {
  readonly value: readonly number[];
  readonly mask: readonly number[];
}

/** A rule's fields; what is absent is not looked at. */
export interface FlowRule {
  readonly type: keyof typeof FLOW;
  /** IPv4 and IPv6 addresses, as 1 or 4 words. */
  readonly source?: MaskedWords;
  readonly destination?: MaskedWords;
  readonly sourcePort?: Masked;
  readonly destinationPort?: Masked;
  /** IP protocol, of ip4 and ip6. */
  readonly protocol?: number;
  /** Ethernet addresses and type, of ether. */
  readonly sourceMac?: MaskedWords;
  readonly destinationMac?: MaskedWords;
  readonly etherType?: number;
  /** The outermost VLAN tag: its control information (12 bits of id), and its type. */
  readonly vlanId?: Masked;
  readonly vlanType?: number;
}

/** sizeof(struct ethtool_rx_flow_spec) on 64-bit. */
export const FLOW_SPEC_SIZE = 168;
/** Offsets of its members; flow_type stands at 0. */
const AT = { value: 4, extValue: 56, mask: 76, extMask: 128, ringCookie: 152, location: 160 } as const;
/** Offsets in struct ethtool_flow_ext. */
const EXT = { vlanType: 8, vlanTci: 10 } as const;
/** ip_ver of struct ethtool_usrip4_spec: the only value it may have. */
const ETH_RX_NFC_IP4 = 1;

/** The rule as the kernel takes it: frames go to `queue`. Addresses and ports are in network byte order. */
export function encodeRule(rule: FlowRule, queue: number, location: number): NtupleRule {
  const bytes = new Uint8Array(FLOW_SPEC_SIZE);
  const view = new DataView(bytes.buffer);
  const extended = rule.vlanId !== undefined || rule.vlanType !== undefined;
  view.setUint32(0, (FLOW[rule.type] | (extended ? FLOW_EXT : 0)) >>> 0, true);
  const put16 = (at: number, field: Masked | undefined): void => {
    view.setUint16(AT.value + at, field?.value ?? 0);
    view.setUint16(AT.mask + at, field?.mask ?? 0);
  };
  const put8 = (at: number, value: number | undefined): void => {
    view.setUint8(AT.value + at, value ?? 0);
    view.setUint8(AT.mask + at, value === undefined ? 0 : 0xff);
  };
  const putWords = (at: number, field: MaskedWords | undefined): void => {
    for (const [index, word] of (field?.value ?? []).entries()) {
      view.setUint32(AT.value + at + 4 * index, word);
      view.setUint32(AT.mask + at + 4 * index, field!.mask[index]!);
    }
  };
  const putMac = (at: number, field: MaskedWords | undefined): void => {
    bytes.set(field?.value ?? [], AT.value + at);
    bytes.set(field?.mask ?? [], AT.mask + at);
  };
  switch (rule.type) {
    case "tcp4":
    case "udp4":
    case "sctp4":
      putWords(0, rule.source);
      putWords(4, rule.destination);
      put16(8, rule.sourcePort);
      put16(10, rule.destinationPort);
      break;
    case "tcp6":
    case "udp6":
    case "sctp6":
      putWords(0, rule.source);
      putWords(16, rule.destination);
      put16(32, rule.sourcePort);
      put16(34, rule.destinationPort);
      break;
    case "ip4":
      // struct ethtool_usrip4_spec: two addresses, 4 bytes of layer 4, tos, ip_ver, proto.
      putWords(0, rule.source);
      putWords(4, rule.destination);
      view.setUint8(AT.value + 13, ETH_RX_NFC_IP4);
      put8(14, rule.protocol);
      break;
    case "ip6":
      // struct ethtool_usrip6_spec: two addresses, 4 bytes of layer 4, tclass, l4_proto.
      putWords(0, rule.source);
      putWords(16, rule.destination);
      put8(37, rule.protocol);
      break;
    case "ether":
      putMac(0, rule.destinationMac);
      putMac(6, rule.sourceMac);
      put16(12, rule.etherType === undefined ? undefined : { value: rule.etherType, mask: 0xffff });
      break;
  }
  if (rule.vlanType !== undefined) {
    view.setUint16(AT.extValue + EXT.vlanType, rule.vlanType);
    view.setUint16(AT.extMask + EXT.vlanType, 0xffff);
  }
  if (rule.vlanId !== undefined) {
    view.setUint16(AT.extValue + EXT.vlanTci, rule.vlanId.value);
    view.setUint16(AT.extMask + EXT.vlanTci, rule.vlanId.mask);
  }
  view.setBigUint64(AT.ringCookie, BigInt(queue), true);
  view.setUint32(AT.location, location, true);
  return { location, bytes };
}
