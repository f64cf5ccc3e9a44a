// A model of a card's ntuple filter: what a rule's bytes say of a frame.
import { FLOW, FLOW_SPEC_SIZE } from "./flow-spec.js";

/*
 * The model decodes struct ethtool_rx_flow_spec by itself, so that it tests the encoder too. As cards do, it looks
 * behind one VLAN tag for the network header; the extension's fields are about that tag. Where cards differ, it
 * matches less: the transport of a fragment other than the first is not seen, nor that behind IPv6 extension
 * headers.
 */
const EXT_FLAG = 0x80000000;
const TRANSPORT_TYPES: ReadonlyMap<number, { readonly version: 4 | 6; readonly protocol: number }> = new Map([
  [FLOW.tcp4, { version: 4, protocol: 6 }],
  [FLOW.udp4, { version: 4, protocol: 17 }],
  [FLOW.sctp4, { version: 4, protocol: 132 }],
  [FLOW.tcp6, { version: 6, protocol: 6 }],
  [FLOW.udp6, { version: 6, protocol: 17 }],
  [FLOW.sctp6, { version: 6, protocol: 132 }],
]);

interface Parsed {
  readonly tag: number | null;
  readonly type: number;
  readonly network: number;
  readonly frame: Uint8Array;
}

/** Whether a card with this rule (168 bytes) would steer the frame. */
export function ruleMatches(rule: Uint8Array, frame: Uint8Array): boolean {
  if (rule.length !== FLOW_SPEC_SIZE) throw new RangeError(`a rule of ${rule.length} bytes`);
  const view = new DataView(rule.buffer, rule.byteOffset, rule.length);
  const flow = view.getUint32(0, true);
  if (frame.length < 14) return false;
  const value = rule.subarray(4, 56);
  const mask = rule.subarray(76, 128);
  const parsed = parse(frame);
  if ((flow & EXT_FLAG) !== 0 && !extensionMatches(rule.subarray(56, 76), rule.subarray(128, 148), parsed)) {
    return false;
  }
  /** `count` bytes of the frame at `from` against the rule's at `at`. */
  const field = (at: number, from: number, count: number): boolean =>
    same(value, mask, at, frame, from, count);
  const type = (flow & ~EXT_FLAG) >>> 0;
  const { network } = parsed;
  if (type === FLOW.ether) {
    return field(0, 0, 6) && field(6, 6, 6) && field(12, parsed.tag === null ? 12 : 16, 2);
  }
  const transport = TRANSPORT_TYPES.get(type);
  const version = transport?.version ?? (type === FLOW.ip4 ? 4 : type === FLOW.ip6 ? 6 : 0);
  if (version === 4) {
    if (parsed.type !== 0x0800) return false;
    if (!field(0, network + 12, 4) || !field(4, network + 16, 4)) return false;
    if (transport === undefined) return field(14, network + 9, 1);
    const fragment = ((frame[network + 6]! << 8) | frame[network + 7]!) & 0x1fff;
    const ports = network + 4 * (frame[network]! & 0xf);
    return frame[network + 9] === transport.protocol && fragment === 0 && field(8, ports, 4);
  }
  if (version === 6) {
    if (parsed.type !== 0x86dd) return false;
    if (!field(0, network + 8, 16) || !field(16, network + 24, 16)) return false;
    if (transport === undefined) return field(37, network + 6, 1);
    return frame[network + 6] === transport.protocol && field(32, network + 40, 4);
  }
  throw new RangeError(`flow type ${type} is unknown`);
}

function parse(frame: Uint8Array): Parsed {
  const type = (frame[12]! << 8) | frame[13]!;
  const tagged = [0x8100, 0x88a8, 0x9100].includes(type);
  if (!tagged || frame.length < 18) return { tag: tagged ? type : null, type, network: 14, frame };
  return { tag: type, type: (frame[16]! << 8) | frame[17]!, network: 18, frame };
}

/** struct ethtool_flow_ext: type of the tag at 8, its control information at 10. */
function extensionMatches(value: Uint8Array, mask: Uint8Array, parsed: Parsed): boolean {
  if (parsed.tag === null) return false;
  return same(value, mask, 8, parsed.frame, 12, 4);
}

function same(
  value: Uint8Array,
  mask: Uint8Array,
  at: number,
  frame: Uint8Array,
  from: number,
  count: number,
): boolean {
  for (let index = 0; index < count; index++) {
    const wanted = mask[at + index]!;
    if (wanted === 0) continue;
    const byte = frame[from + index];
    if (byte === undefined || ((byte ^ value[at + index]!) & wanted) !== 0) return false;
  }
  return true;
}
