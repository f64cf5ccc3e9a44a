//! The fuzz targets on bytes of a fixed generator: the same every time, and as long as a suite can spare.

#[path = "../fuzz/src/card.rs"]
mod card;
#[path = "../fuzz/src/driven.rs"]
mod driven;
#[path = "../fuzz/src/messages.rs"]
mod messages;

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn the_device_half_of_a_ring_copes_with_any_driver() {
    for seed in 0..3000 {
        driven::device_ring(&bytes(seed, 600));
    }
}

#[test]
fn the_driver_half_of_a_ring_copes_with_any_device() {
    for seed in 0..1500 {
        driven::driver_ring(&bytes(seed, 600));
    }
}

#[test]
fn the_descriptor_rings_cope_with_any_card() {
    for seed in 0..1500 {
        card::card(&bytes(seed, 600));
    }
}

#[test]
fn the_device_end_copes_with_any_messages() {
    let requests = [1u32, 2, 3, 5, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 39, 40, 4];
    let sizes = [0u32, 8, 0, 40, 8, 40, 8, 8, 8, 8, 0, 8, 0, 8, 8, 0, 0];
    for seed in 0..1500 {
        // Sound headers, so that the payloads are looked at; small numbers, so that some of them can be.
        let noise = bytes(seed, 4096);
        let mut data = Vec::new();
        for chunk in noise.chunks(48).take(24) {
            let at = usize::from(chunk[0]) % requests.len();
            data.extend(requests[at].to_ne_bytes());
            data.extend([if chunk[1] & 7 == 0 { 9 } else { 1 }, 0, 0, 0]);
            data.extend(sizes[at].to_ne_bytes());
            let small = |byte: &u8| if chunk[1] & 0xf0 == 0 { *byte } else { byte & 1 };
            data.extend(chunk[2..].iter().take(sizes[at] as usize).map(small));
        }
        messages::messages(&data);
        messages::messages(&noise);
    }
}
