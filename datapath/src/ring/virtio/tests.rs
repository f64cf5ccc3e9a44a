//! Both halves of a virtqueue against each other, in memory of the heap; chains, tables and regions that cannot be. Each
//! half against an end that writes anything: the fuzz targets `device_ring` and `driver_ring`.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Memory of a ring and of its buffers, zeroed, aligned to a page as a mapping is.
pub(super) struct Ground {
    base: *mut u8,
    len: usize,
}

// SAFETY: owns its allocation.
unsafe impl Send for Ground {}
// SAFETY: only reached through raw pointers, by tests of one thread or through the rings' own protocol.
unsafe impl Sync for Ground {}

impl Ground {
    pub(super) fn new(len: usize) -> Arc<Ground> {
        // SAFETY: a layout of more than zero bytes.
        let base = unsafe { std::alloc::alloc_zeroed(Self::layout(len)) };
        Arc::new(Ground { base, len })
    }

    fn layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len, 4096).unwrap()
    }

    pub(super) fn places(self: &Arc<Ground>, size: u16, packed: bool) -> Places {
        let layout = Places::layout(size, packed);
        assert!(layout.len <= self.len);
        // SAFETY: within the allocation, which the clone keeps.
        unsafe {
            Places::new(
                self.base,
                self.base.add(layout.driver),
                self.base.add(layout.device),
                size,
                packed,
                Arc::clone(self) as Keep,
            )
        }
        .unwrap()
    }

    pub(super) fn window(self: &Arc<Ground>, addr: u64) -> Window {
        let base = NonNull::new(self.base).unwrap();
        // SAFETY: all of the allocation, kept by the clone.
        let region = unsafe { Region::new(addr, addr, self.len as u64, base, Arc::clone(self) as Keep) };
        Window::new(Arc::new(Regions::new(vec![region.unwrap()]).unwrap()))
    }

    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: within the allocation.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { std::alloc::dealloc(self.base, Self::layout(self.len)) }
    }
}

/// Every combination of layout, event index and order.
fn kinds() -> impl Strategy<Value = (bool, Options)> {
    (any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(packed, event_idx, in_order)| (packed, Options { event_idx, in_order }))
}

pub(super) fn pair(
    ground: &Arc<Ground>,
    size: u16,
    packed: bool,
    options: Options,
) -> (Box<dyn DriverRing>, Box<dyn DeviceRing>) {
    if packed {
        let driver = PackedDriver::new(ground.places(size, true), options);
        let device = PackedDevice::new(ground.places(size, true), options, 0x8000_8000).unwrap();
        (Box::new(driver), Box::new(device))
    } else {
        let driver = SplitDriver::new(ground.places(size, false), options);
        let device = SplitDevice::new(ground.places(size, false), options, 0);
        (Box::new(driver), Box::new(device))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Buffers come back once each, in order, whatever the two ends' pace; and nobody who sleeps is left asleep.
    #[test]
    fn what_is_added_is_used_once_and_a_sleeper_is_woken(
        (packed, options) in kinds(), power in 0..6u32,
        steps in proptest::collection::vec((0..3u8, 1..9u16, any::<bool>()), 1..300), written: bool,
    ) {
        let size = 1u16 << power;
        let ground = Ground::new(1 << 16);
        let (mut driver, mut device) = pair(&ground, size, packed, options);
        let (mut next, mut expected) = (0u64, VecDeque::new());
        let (mut device_sleeps, mut driver_sleeps) = (false, false);
        let (mut kicked, mut called) = (false, false);
        let mut heads = [Head::default(); 8];
        let mut waiting = VecDeque::new();
        for (who, count, sleep) in steps {
            match who {
                0 => {
                    for _ in 0..count {
                        if driver.room() == 0 { break; }
                        expected.push_back((driver.next_id(), next));
                        waiting.push_back(next);
                        driver.add(next, 100, if written { WRITE } else { 0 });
                        next += 1;
                    }
                    driver.publish();
                    kicked |= driver.wants_kick();
                }
                1 => {
                    prop_assert!(!device_sleeps || kicked || waiting.is_empty(), "the device sleeps on");
                    let count = usize::from(count).min(8);
                    let got = device.look(&mut heads[..count]).unwrap();
                    prop_assert_eq!(got, count.min(waiting.len()));
                    for head in &heads[..got] {
                        prop_assert_eq!(Some(head.addr), waiting.pop_front());
                        prop_assert_eq!((head.len, head.flags), (100, if written { WRITE } else { 0 }));
                        device.complete(head, if written { 1 + head.addr as u32 % 100 } else { 0 });
                    }
                    device.publish();
                    called |= device.wants_call();
                    device_sleeps = false;
                    if sleep && waiting.is_empty() {
                        prop_assert!(device.enable_kicks());
                        (device_sleeps, kicked) = (true, false);
                    } else {
                        device.disable_kicks();
                    }
                }
                _ => {
                    let ready = expected.len() - waiting.len();
                    prop_assert!(!driver_sleeps || called || ready == 0, "the driver sleeps on");
                    for _ in 0..ready.min(usize::from(count)) {
                        let used = driver.pop_used().unwrap();
                        let (id, addr) = expected.pop_front().unwrap();
                        prop_assert_eq!(used.id, id);
                        if written {
                            prop_assert_eq!(used.len, 1 + addr as u32 % 100);
                        }
                        driver.free(used.id);
                    }
                    driver_sleeps = false;
                    if sleep && ready <= usize::from(count) {
                        prop_assert!(driver.pop_used().is_none());
                        prop_assert!(driver.enable_calls());
                        (driver_sleeps, called) = (true, false);
                    } else {
                        driver.disable_calls();
                    }
                }
            }
            prop_assert_eq!(driver.hostile(), 0);
            prop_assert_eq!(usize::from(driver.room()) + expected.len(), usize::from(size));
        }
    }

    /// A device takes over where another one stopped.
    #[test]
    fn a_new_device_goes_on_at_the_base(packed: bool, before in 0..40usize, after in 1..8usize) {
        let ground = Ground::new(1 << 16);
        let options = Options::default();
        let (mut driver, mut device) = pair(&ground, 16, packed, options);
        let mut heads = [Head::default(); 1];
        for addr in 0..before as u64 {
            driver.add(addr, 1, 0);
            driver.publish();
            prop_assert_eq!(device.look(&mut heads).unwrap(), 1);
            device.complete(&heads[0], 0);
            device.publish();
            let used = driver.pop_used().unwrap();
            driver.free(used.id);
        }
        for addr in 0..after as u64 {
            driver.add(1000 + addr, 1, 0);
        }
        driver.publish();
        let base = device.base();
        drop(device);
        let mut device: Box<dyn DeviceRing> = if packed {
            Box::new(PackedDevice::new(ground.places(16, true), options, base).unwrap())
        } else {
            Box::new(SplitDevice::new(ground.places(16, false), options, base as u16))
        };
        for addr in 0..after as u64 {
            prop_assert_eq!(device.look(&mut heads).unwrap(), 1);
            prop_assert_eq!(heads[0].addr, 1000 + addr);
            device.complete(&heads[0], 0);
            device.publish();
            prop_assert!(driver.pop_used().is_some());
        }
    }
}

/// What it skips the driver takes for used completely (section 2.7.9): of a buffer to be written that is full.
#[test]
fn in_order_one_entry_tells_of_buffers_that_were_read_and_of_none_to_be_written() {
    for (packed, flags, whole) in [false, true].into_iter().flat_map(|packed| {
        [
            (packed, [0, 0, 0], [true, true, false]),
            (packed, [WRITE, WRITE, WRITE], [false, false, false]),
            // What is in a table its head does not say.
            (packed, [INDIRECT, INDIRECT, INDIRECT], [false, false, false]),
            (packed, [0, 0, WRITE], [true, false, false]),
            (packed, [WRITE, 0, 0], [false, true, false]),
        ]
    }) {
        let ground = Ground::new(1 << 16);
        let options = Options {
            in_order: true,
            event_idx: false,
        };
        let (mut driver, mut device) = pair(&ground, 8, packed, options);
        for flags in flags {
            driver.add(0, 100, flags);
        }
        driver.publish();
        let mut heads = [Head::default(); 3];
        assert_eq!(device.look(&mut heads), Ok(3));
        for head in &heads {
            device.complete(head, 0);
        }
        device.publish();
        let used: Vec<_> = std::iter::from_fn(|| driver.pop_used()).collect();
        let expected = [0, 1, 2].map(|id| Used {
            id,
            whole: whole[usize::from(id)],
            len: 0,
        });
        assert_eq!(used, expected, "packed {packed}, flags {flags:?}");
        assert_eq!(driver.hostile(), 0);
    }
}

/// A descriptor of the split layout: address, length, flags, next.
type Entry = (u64, u32, u16, u16);

/// Descriptors of a split table, or of an indirect one.
fn table(ground: &Ground, at: usize, entries: &[Entry]) {
    for (index, &(addr, len, flags, next)) in entries.iter().enumerate() {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        ground.write(at + 16 * index, &bytes);
    }
}

/// The pieces of the first available buffer of a split ring of 8 with these descriptors.
fn split_pieces(entries: &[Entry], tables: &[(usize, &[Entry])]) -> Option<Vec<Piece>> {
    let ground = Ground::new(1 << 16);
    let (_driver, mut device) = pair(&ground, 8, false, Options::default());
    table(&ground, 0, entries);
    for (at, entries) in tables {
        table(&ground, *at, entries);
    }
    // avail: flags 0, idx 1, ring[0] = 0.
    ground.write(128, &[0, 0, 1, 0, 0, 0]);
    let mut heads = [Head::default(); 4];
    assert_eq!(device.look(&mut heads), Ok(1));
    let mut out = [Piece::default(); PIECES_MAX];
    let count = device.pieces(&heads[0], &mut ground.window(0x10_0000), &mut out)?;
    Some(out[..count].to_vec())
}

#[test]
fn chains_and_indirect_tables_are_followed() {
    let piece = |addr, len, write| Piece { addr, len, write };
    let chain = split_pieces(&[(10, 1, NEXT, 2), (0, 0, 0, 0), (20, 2, NEXT | WRITE, 7)], &[]);
    assert_eq!(
        chain,
        Some(vec![piece(10, 1, false), piece(20, 2, true), piece(0, 0, false)])
    );
    let inner: &[_] = &[(30, 3, NEXT, 1), (40, 4, WRITE, 0)];
    let indirect = split_pieces(&[(0x10_1000, 32, INDIRECT, 0)], &[(0x1000, inner)]);
    assert_eq!(indirect, Some(vec![piece(30, 3, false), piece(40, 4, true)]));
}

/// In a packed ring's table an id stands where a split one's has its flags, and Linux leaves there whatever it was.
#[test]
fn of_a_packed_table_neither_ids_nor_flags_count_but_one() {
    let ground = Ground::new(1 << 16);
    let (mut driver, mut device) = pair(&ground, 8, true, Options::default());
    let any = NEXT | WRITE | INDIRECT | AVAIL | USED;
    let inner: &[_] = &[
        (30, 3, any, any & !WRITE),
        (40, 4, 0, WRITE),
        (50, 5, u16::MAX, 0),
    ];
    table(&ground, 0x1000, inner);
    driver.add(0x10_1000, 48, INDIRECT);
    driver.publish();
    let mut heads = [Head::default(); 4];
    assert_eq!(device.look(&mut heads), Ok(1));
    let mut out = [Piece::default(); PIECES_MAX];
    let count = device.pieces(&heads[0], &mut ground.window(0x10_0000), &mut out);
    let piece = |addr, len, write| Piece { addr, len, write };
    let expected = [piece(30, 3, false), piece(40, 4, true), piece(50, 5, false)];
    assert_eq!((count, &out[..3]), (Some(3), &expected[..]));
}

#[test]
fn a_chain_that_cannot_be_is_no_chain() {
    // A loop, an index beyond the ring, an indirect table in a chain, both flags at once.
    assert_eq!(split_pieces(&[(0, 1, NEXT, 1), (0, 1, NEXT, 0)], &[]), None);
    assert_eq!(split_pieces(&[(0, 1, NEXT, 8)], &[]), None);
    assert_eq!(
        split_pieces(&[(0, 1, NEXT, 1), (0x10_1000, 16, INDIRECT, 0)], &[(0x1000, &[])]),
        None
    );
    assert_eq!(
        split_pieces(&[(0x10_1000, 16, INDIRECT | NEXT, 0)], &[(0x1000, &[])]),
        None
    );
    // Tables: empty, cut, outside of memory, not aligned, a table in a table, a loop, an index beyond it.
    let inner = |addr, len, entries: &[_]| split_pieces(&[(addr, len, INDIRECT, 0)], &[(0x1000, entries)]);
    assert_eq!(inner(0x10_1000, 0, &[]), None);
    assert_eq!(inner(0x10_1000, 24, &[]), None);
    assert_eq!(inner(0x10_fff8, 16, &[]), None);
    assert_eq!(inner(0x10_1004, 16, &[]), None);
    assert_eq!(inner(0x10_1000, 16, &[(0, 1, INDIRECT, 0)]), None);
    assert_eq!(inner(0x10_1000, 32, &[(0, 1, NEXT, 1), (0, 1, NEXT, 0)]), None);
    assert_eq!(inner(0x10_1000, 16, &[(0, 1, NEXT, 1)]), None);
}

#[test]
fn memory_is_found_only_where_it_is() {
    let ground = Ground::new(1 << 16);
    let mut window = ground.window(0x10_0000);
    for (addr, len, found) in [
        (0x10_0000, 1 << 16, true),
        (0x10_0000, (1 << 16) + 1, false),
        (0x10_ffff, 1, true),
        (0x10_ffff, 2, false),
        (0x11_0000, 0, false),
        (0x0f_ffff, 1, false),
        (u64::MAX, 2, false),
    ] {
        assert_eq!(window.at(addr, len).is_some(), found, "{addr:#x} {len}");
    }
}

#[test]
fn regions_that_overlap_or_wrap_are_no_table() {
    let ground = Ground::new(1 << 16);
    let base = NonNull::new(ground.base).unwrap();
    let region = |addr, user, len| {
        // SAFETY: at most all of the allocation, kept by the clone.
        unsafe { Region::new(addr, user, len, base, Arc::clone(&ground) as Keep) }
    };
    let table = |a: (u64, u64), b: (u64, u64)| {
        let both = [a, b].map(|(addr, user)| region(addr, user, 0x1000).unwrap());
        Regions::new(both.to_vec()).is_some()
    };
    assert!(table((0, 0), (0x1000, 0x1000)));
    assert!(!table((0, 0), (0xfff, 0x2000)), "in what descriptors name");
    assert!(!table((0x2000, 0x2000), (0, 0x2fff)), "in what rings name");
    assert!(region(0, 0, 0).is_none());
    assert!(region(u64::MAX, 0, 2).is_none() && region(0, u64::MAX, 2).is_none());
}

#[test]
fn no_entry_of_a_used_ring_lies_across_two_pages() {
    for size in (0..=15).map(|shift| 1u16 << shift) {
        let layout = Places::layout(size, false);
        // A ring begins at a multiple of 128 bytes; its entries begin 4 bytes into it and have 8.
        let first = layout.device + 4;
        assert!(first.is_multiple_of(8), "{size} slots");
        let (.., device) = Places::lengths(size, false);
        assert!(layout.device + device <= layout.len, "{size} slots");
    }
}
