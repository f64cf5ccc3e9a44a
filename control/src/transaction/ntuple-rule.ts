// Whether two ntuple rules are the same one: drivers give back what they kept, not the bytes they were given.

// struct ethtool_rx_flow_spec, linux/ethtool.h, 64-bit: flow_type, then the values h_u (52 bytes) and h_ext (20),
// then their masks m_u and m_ext, ring_cookie (8-byte aligned), location.
const VALUES = 4;
const MASKS = 76;
const FIELDS = 72;
const RING_COOKIE = 152;
const LOCATION = 160;
const SIZE = 168;

/** Bytes as lower-case hex. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/**
 * Whether `there`, read from the card, is the rule `ours` (both hex): same flow type, queue and location, and
 * the same values wherever our masks look. Bits that no mask looks at may come back as anything.
 */
export function sameRule(ours: string, there: string): boolean {
  const a = Buffer.from(ours, "hex");
  const b = Buffer.from(there, "hex");
  if (a.length !== SIZE || b.length !== SIZE) return ours === there;
  if (!a.subarray(0, VALUES).equals(b.subarray(0, VALUES))) return false;
  if (!a.subarray(RING_COOKIE, LOCATION + 4).equals(b.subarray(RING_COOKIE, LOCATION + 4))) return false;
  for (let i = 0; i < FIELDS; i++) {
    const mask = a.readUInt8(MASKS + i);
    if ((b.readUInt8(MASKS + i) & mask) !== mask) return false;
    if (((a.readUInt8(VALUES + i) ^ b.readUInt8(VALUES + i)) & mask) !== 0) return false;
  }
  return true;
}
