//! The kinds of rings that a hostile end is tried with, and what it writes into them.
#![allow(dead_code, reason = "each test file uses some of it")]

use bifurcate_datapath::ring::virtio::feature;

/// The features of rings of every kind: either layout, by themselves and with what changes how they are used.
pub const KINDS: [u64; 4] = [
    0,
    feature::EVENT_IDX | feature::IN_ORDER,
    feature::RING_PACKED,
    feature::RING_PACKED | feature::EVENT_IDX | feature::IN_ORDER,
];

/// Numbers without a pattern, the same ones each time: xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
pub fn anything() -> impl FnMut() -> u64 {
    let mut random = 88_172_645_463_325_252u64;
    move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    }
}
