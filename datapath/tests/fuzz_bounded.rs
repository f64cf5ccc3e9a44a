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

/// Counts of all inputs together, and how many inputs had more than none.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    all: u64,
    inputs: u32,
}

impl Sum {
    fn add(&mut self, count: impl Into<u64>) {
        let count = count.into();
        self.all += count;
        self.inputs += u32::from(count > 0);
    }
}

/// What the inputs of a run reached, against a floor well under what they do: a target that looks on while its inputs end
/// at the first check finds nothing.
fn reached(what: &str, sums: &[(&str, Sum, u64, u32)]) {
    for (part, sum, all, inputs) in sums {
        println!("{what}: {part}: {} in {} inputs", sum.all, sum.inputs);
        assert!(
            sum.all >= *all && sum.inputs >= *inputs,
            "{what}: {part}: {} in {} inputs, of {all} in {inputs} at least",
            sum.all,
            sum.inputs,
        );
    }
}

/// Runs a target of either half, and asks what its inputs reached by layout: buffers, sound and refused ones, several
/// at once, rings found broken.
fn halves(what: &str, seeds: u64, target: fn(&[u8]) -> driven::Reached, floors: [[(u64, u32); 5]; 2]) {
    let mut sums = [[Sum::default(); 5]; 2];
    for seed in 0..seeds {
        let input = bytes(seed, 600);
        let of = target(&input);
        let sums = &mut sums[usize::from(input[0] & 1)];
        let counts = [of.buffers, of.sound, of.refused, of.several, of.broken.into()];
        for (sum, count) in sums.iter_mut().zip(counts) {
            sum.add(count);
        }
    }
    let parts = ["buffers", "sound", "refused", "several", "broken"];
    for (at, layout) in ["split", "packed"].iter().enumerate() {
        let rows: Vec<_> = (0..5)
            .map(|part| {
                (
                    parts[part],
                    sums[at][part],
                    floors[at][part].0,
                    floors[at][part].1,
                )
            })
            .collect();
        reached(&format!("{what}, {layout}"), &rows);
    }
}

#[test]
fn the_device_half_of_a_ring_copes_with_any_driver() {
    halves(
        "device",
        3000,
        driven::device_ring,
        [
            [
                (15_000, 400),
                (7_500, 400),
                (1_600, 350),
                (3_000, 330),
                (270, 270),
            ],
            [(10_000, 370), (5_800, 360), (900, 280), (3_200, 330), (60, 60)],
        ],
    );
}

#[test]
fn the_driver_half_of_a_ring_copes_with_any_device() {
    halves(
        "driver",
        1500,
        driven::driver_ring,
        [
            [(14_000, 210), (11_000, 210), (2_600, 75), (9_000, 95), (230, 230)],
            [(4_600, 210), (4_600, 210), (12, 11), (3_700, 85), (100, 100)],
        ],
    );
}

#[test]
fn the_descriptor_rings_cope_with_any_card() {
    let [mut received, mut refused, mut sent, mut faults] = [Sum::default(); 4];
    for seed in 0..1500 {
        let of = card::card(&bytes(seed, 600));
        received.add(of.received);
        refused.add(of.refused);
        sent.add(of.sent);
        faults.add(of.faults);
    }
    let rows = [
        ("received", received, 3_700, 470),
        ("refused", refused, 2_700, 470),
        ("sent", sent, 80_000, 500),
        ("faults", faults, 1_700, 480),
    ];
    reached("card", &rows);
}

/// A message of a driver that mostly knows what it does, out of 48 bytes.
fn message(noise: &[u8]) -> Vec<u8> {
    const REQUESTS: [u32; 24] = [
        1, 2, 3, 5, 8, 8, 8, 9, 9, 9, 10, 11, 12, 12, 12, 13, 14, 15, 16, 17, 18, 18, 39, 40,
    ];
    let request = REQUESTS[usize::from(noise[0]) % REQUESTS.len()];
    let word = |at: usize| u16::from_le_bytes([noise[at], noise[at + 1]]);
    let ring = u32::from(noise[2] % 4);
    let two = |a: u32, b: u32| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
    let numbers = |of: &[u64]| of.iter().flat_map(|number| number.to_ne_bytes()).collect();
    let payload: Vec<u8> = if noise[1] & 0x1f == 0 {
        noise[2..2 + usize::from(noise[3] % 44)].to_vec()
    } else {
        match request {
            // VERSION_1 and the features of rings, some of them.
            2 => numbers(&[1 << 32 | u64::from(word(4)) << 28 & 0xc_7000_0000]),
            5 => {
                let page = |at: usize, most: u8| u64::from(noise[at] % most) << 12;
                let [guest, user] = [page(4, 4), page(5, 4)];
                let size = if noise[6] & 3 == 0 { page(7, 18) } else { 1 << 16 };
                [
                    two(1, 0),
                    numbers(&[
                        guest,
                        size,
                        user,
                        page(8, 4) & if size < 1 << 16 { !0 } else { 0 },
                    ]),
                ]
                .concat()
            }
            8 => two(ring, 1 << (noise[3] % 9)),
            // In the ring, either layout: the slot, and laps.
            10 => two(
                ring,
                u32::from(noise[3] % 4) | u32::from(word(4)) << 15 & 0x8000_8000,
            ),
            9 => {
                let place = |at: usize| u64::from(word(at) & 0xfff0);
                let odd = u64::from(noise[10] == 0);
                [two(ring, 0), numbers(&[place(4), place(6) + odd, place(8), 0])].concat()
            }
            12..=14 => numbers(&[u64::from(ring) | u64::from(noise[3] & 7 == 0) << 8]),
            16 => numbers(&[u64::from(word(4)) & 0x19]),
            18 => two(ring, u32::from(noise[3] & 3 != 0)),
            11 => two(ring, 0),
            39 => numbers(&[u64::from(noise[3] & 15)]),
            _ => Vec::new(),
        }
    };
    let flags = if noise[1] >> 5 == 0 { 9u32 } else { 1 };
    let header = [request, flags, payload.len() as u32]
        .map(u32::to_ne_bytes)
        .concat();
    [header, payload].concat()
}

#[test]
fn the_device_end_copes_with_any_messages() {
    let [mut handled, mut replies, mut tables, mut live] = [Sum::default(); 4];
    for seed in 0..1500 {
        let noise = bytes(seed, 4096);
        let mut data = vec![noise[0]];
        data.extend(noise[1..].chunks_exact(48).take(40).flat_map(message));
        let of = messages::messages(&data);
        handled.add(of.handled);
        replies.add(of.replies);
        tables.add(of.tables);
        live.add(of.live);
        messages::messages(&noise);
    }
    let rows = [
        ("handled", handled, 11_500, 480),
        ("replies", replies, 2_600, 440),
        ("tables", tables, 460, 280),
        ("live", live, 630, 78),
    ];
    reached("messages", &rows);
}
