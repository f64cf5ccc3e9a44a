//! Both halves of a virtqueue, driven while the bytes of the input are written anywhere into it.

use std::any::Any;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

use bifurcate_datapath::frame::{Batch, Lent, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::{
    DeviceRing, DriverRing, Head, INDIRECT, NEXT, Options, PIECES_MAX, PackedDevice, PackedDriver, Piece,
    Places, Region, Regions, SplitDevice, SplitDriver, WRITE, Window,
};
use bifurcate_linux::memory::Mapping;

const MEMORY: usize = 1 << 14;
const AT: u64 = 1 << 20;
/// Where indirect tables are looked for and written, so that the two meet: some entries behind the largest ring.
const TABLES: usize = 1 << 13;
const ENTRIES: usize = 32;
/// Flags of the packed layout (VIRTIO 1.2, section 2.8.1): a descriptor is available in the lap of the first when the
/// two differ, used when they are alike.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// How far an input came, so that a run on fixed bytes can tell that it tried what it is there to try.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Buffers that the half under test took: available ones, or used ones.
    pub buffers: u32,
    /// Of these: in one piece or several within memory, or frames that came back.
    pub sound: u32,
    /// Of these: malformed, or of an id that nobody held.
    pub refused: u32,
    /// Chains and tables followed to a second piece; used entries that stood for several.
    pub several: u32,
    /// The other end's index was impossible at some time.
    pub broken: bool,
}

/// The input, byte by byte; zeros after its end.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.next(), self.next()])
    }
}

struct Ground(Arc<Mapping>);

impl Ground {
    fn new() -> Option<Ground> {
        Mapping::anonymous(MEMORY).ok().map(Arc::new).map(Ground)
    }

    fn places(&self, size: u16, packed: bool) -> Option<Places> {
        let layout = Places::layout(size, packed);
        let keep: Arc<dyn Any + Send + Sync> = Arc::clone(&self.0) as _;
        assert!(layout.len <= MEMORY);
        // SAFETY: within the mapping, which the clone keeps.
        unsafe {
            let base = self.0.base().as_ptr();
            let (driver, device) = (base.add(layout.driver), base.add(layout.device));
            Places::new(base, driver, device, size, packed, keep)
        }
    }

    fn window(&self) -> Option<Window> {
        let keep: Arc<dyn Any + Send + Sync> = Arc::clone(&self.0) as _;
        // SAFETY: all of the mapping, which the clone keeps.
        let region = unsafe { Region::new(AT, AT, MEMORY as u64, self.0.base(), keep) }?;
        Some(Window::new(Arc::new(Regions::new(vec![region])?)))
    }

    fn contains(&self, at: *mut u8, len: usize) -> bool {
        let from = self.0.base().as_ptr() as usize;
        let at = NonNull::new(at).map_or(0, |at| at.as_ptr() as usize);
        at >= from && at + len <= from + MEMORY
    }

    /// Writes a word anywhere within the first `len` bytes.
    fn poke(&self, at: u16, value: u16, len: usize) {
        self.write(usize::from(at) % (len / 2) * 2, value);
    }

    /// Writes a word.
    fn write(&self, at: usize, value: u16) {
        assert!(at.is_multiple_of(2) && at + 2 <= MEMORY);
        // SAFETY: within the mapping, and aligned.
        unsafe { self.0.base().as_ptr().add(at).cast::<u16>().write_volatile(value) }
    }

    /// Writes a descriptor of either layout, without its last word.
    fn describe(&self, at: usize, addr: u64, len: u32, third: u16) {
        for word in 0..4 {
            self.write(at + 2 * word, (addr >> (16 * word)) as u16);
        }
        self.write(at + 8, len as u16);
        self.write(at + 10, (len >> 16) as u16);
        self.write(at + 12, third);
    }
}

fn kind(bytes: &mut Bytes<'_>) -> (u8, u16, bool, Options) {
    let first = bytes.next();
    let options = Options {
        event_idx: first & 2 != 0,
        in_order: first & 4 != 0,
    };
    (first, 1 << (first >> 4 & 7), first & 1 != 0, options)
}

/// Address, length and flags of a descriptor: mostly of what there is, sometimes of what cannot be.
fn descriptor(bytes: &mut Bytes<'_>) -> (u64, u32, u16) {
    let (what, place, len) = (bytes.next(), bytes.word(), bytes.next());
    let table = TABLES + usize::from(place) % ENTRIES * 16;
    match what % 16 {
        0 => (u64::MAX - u64::from(place), u32::from(len), 0),
        1 => (AT + u64::from(place), u32::from(len) << 24, WRITE),
        2 => (AT + u64::from(place), u32::from(len), u16::from(what >> 4)),
        3 | 4 => (AT + table as u64, u32::from(len % 8) * 16, INDIRECT),
        5..8 => (AT + u64::from(place) % MEMORY as u64, u32::from(len), NEXT),
        8 => (
            AT + u64::from(place) % MEMORY as u64,
            u32::from(len),
            NEXT | WRITE,
        ),
        9..12 => (AT + u64::from(place) % MEMORY as u64, u32::from(len), WRITE),
        _ => (AT + u64::from(place) % MEMORY as u64, u32::from(len), 0),
    }
}

/// A driver that goes along with the ring: where the next buffer is to be shown.
struct Shown {
    size: u16,
    packed: bool,
    /// Split: the index.
    index: u16,
    /// Packed: the slot, and its lap.
    slot: u16,
    wrap: bool,
}

impl Shown {
    /// Shows one buffer in its turn. Its descriptors are those of the input, in the split layout by an id of the input.
    fn show(&mut self, ground: &Ground, bytes: &mut Bytes<'_>) {
        let (addr, len, flags) = descriptor(bytes);
        let id = u16::from(bytes.next());
        if self.packed {
            let lap = if self.wrap { AVAIL } else { USED };
            let at = usize::from(self.slot) * 16;
            ground.describe(at, addr, len, id);
            ground.write(at + 14, flags | lap);
            self.slot = (self.slot + 1) % self.size;
            self.wrap ^= self.slot == 0;
        } else {
            let driver = Places::layout(self.size, false).driver;
            let next = u16::from(bytes.next());
            // Now and then an id, or a next one, beyond the ring.
            let bound = |id: u16| if id == 0xff { id << 8 } else { id % self.size };
            let at = usize::from(id % self.size) * 16;
            ground.describe(at, addr, len, flags);
            ground.write(at + 14, bound(next));
            ground.write(driver + 4 + 2 * usize::from(self.index % self.size), bound(id));
            self.index = self.index.wrapping_add(1);
            ground.write(driver + 2, self.index);
        }
    }
}

/// The device's half under a driver that writes anything.
///
/// # Panics
/// When something is wrong.
pub fn device_ring(data: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let mut bytes = Bytes(data.iter());
    let (first, size, packed, options) = kind(&mut bytes);
    let Some(ground) = Ground::new() else {
        return reached;
    };
    let (Some(places), Some(mut window)) = (ground.places(size, packed), ground.window()) else {
        return reached;
    };
    // Where rings begin; somewhere within the ring; anything.
    let random = (bytes.word(), bytes.word());
    let within = |half: u16| (half & 0x8000) | ((half & 0x7fff) % size);
    let base = match first & 0x88 {
        0x88 => random,
        8 => (within(random.0), within(random.1)),
        _ if packed => (0x8000, 0x8000),
        _ => (0, 0),
    };
    let base = u32::from(base.0) | u32::from(base.1) << 16;
    let mut ring: Box<dyn DeviceRing> = if packed {
        match PackedDevice::new(places, options, base) {
            Some(ring) => Box::new(ring),
            None => return reached,
        }
    } else {
        Box::new(SplitDevice::new(places, options, base as u16))
    };
    let mut driver = Shown {
        size,
        packed,
        index: base as u16,
        slot: (base & 0x7fff) as u16,
        wrap: base & 0x8000 != 0,
    };
    let layout = Places::layout(size, packed);
    if !packed && first & 0x88 != 0x88 {
        ground.write(layout.driver + 2, driver.index);
    }
    let mut heads = [Head::default(); 8];
    while !bytes.is_over() {
        match bytes.next() % 8 {
            0 => {
                let len = if bytes.next() & 1 == 0 { layout.len } else { MEMORY };
                ground.poke(bytes.word(), bytes.word(), len);
            }
            1 => {
                let entry = usize::from(bytes.next()) % ENTRIES;
                let (addr, len, flags) = descriptor(&mut bytes);
                ground.describe(TABLES + 16 * entry, addr, len, flags & !INDIRECT);
                ground.write(TABLES + 16 * entry + 14, u16::from(bytes.next() % 8));
            }
            2..5 => {
                let more = bytes.next();
                for _ in 0..=more % 4 {
                    // More than there is room for is an index that cannot be, which ends it: now and then.
                    if packed || driver.index.wrapping_sub(ring.base() as u16) < size || more > 0xf0 {
                        driver.show(&ground, &mut bytes);
                    }
                }
            }
            5 | 6 => {
                let Ok(count) = ring.look(&mut heads) else {
                    reached.broken = true;
                    return reached;
                };
                let slots: u32 = heads[..count].iter().map(|head| u32::from(head.slots)).sum();
                assert!(slots <= u32::from(size), "more than the ring has");
                for head in &heads[..count] {
                    let mut pieces = [Piece::default(); PIECES_MAX];
                    reached.buffers += 1;
                    match ring.pieces(head, &mut window, &mut pieces) {
                        Some(count) => {
                            assert!((1..=PIECES_MAX).contains(&count));
                            let mut found = 0;
                            for piece in &pieces[..count] {
                                if let Some(at) = window.at(piece.addr, piece.len) {
                                    assert!(ground.contains(at, piece.len as usize));
                                    found += 1;
                                }
                            }
                            reached.sound += u32::from(found == count);
                            reached.several += u32::from(count > 1);
                        }
                        None => reached.refused += 1,
                    }
                    ring.complete(head, u32::from(bytes.next()) & 0x7f);
                }
                ring.publish();
                ring.wants_call();
            }
            _ => {
                ring.enable_kicks();
                ring.disable_kicks();
                let _ = ring.base();
            }
        }
    }
    reached
}

/// A device that goes along with the ring: what it was shown and has not used yet, and where it says so next.
struct Taken {
    size: u16,
    packed: bool,
    ids: VecDeque<u16>,
    index: u16,
    wrap: bool,
}

impl Taken {
    /// Uses one buffer in its turn, or says that it did.
    fn use_one(&mut self, ground: &Ground, bytes: &mut Bytes<'_>) {
        let (what, number, len) = (bytes.next(), bytes.word(), bytes.word());
        let len = u32::from(len) << (what >> 4 & 8);
        let mut steps = 1;
        // Nothing is there to use: said all the same, now and then.
        let front = self.ids.pop_front();
        if front.is_none() && what < 0xfc {
            return;
        }
        let id = match what % 8 {
            // An id of another one, or of none.
            0 => u32::from(number) << (what >> 4 & 8),
            1 => u32::from(number % self.size),
            // One entry for several, as IN_ORDER has it.
            2 | 3 if !self.ids.is_empty() => {
                let last = usize::from(number) % self.ids.len();
                steps += last as u16 + 1;
                self.ids.drain(..=last).next_back().unwrap_or(0).into()
            }
            _ => front.unwrap_or(0).into(),
        };
        let layout = Places::layout(self.size, self.packed);
        let slot = usize::from(self.index % self.size);
        if self.packed {
            ground.write(slot * 16 + 8, len as u16);
            ground.write(slot * 16 + 10, (len >> 16) as u16);
            ground.write(slot * 16 + 12, id as u16);
            let lap = if self.wrap { AVAIL | USED } else { 0 };
            ground.write(slot * 16 + 14, lap | WRITE);
            let next = self.index + steps;
            (self.index, self.wrap) = (next % self.size, self.wrap ^ (next >= self.size));
        } else {
            let entry = layout.device + 4 + 8 * slot;
            for (at, half) in [id, id >> 16, len, len >> 16].into_iter().enumerate() {
                ground.write(entry + 2 * at, half as u16);
            }
            self.index = self.index.wrapping_add(steps);
            ground.write(layout.device + 2, self.index);
        }
    }
}

/// The driver's half under a device that writes anything.
///
/// # Panics
/// When something is wrong.
pub fn driver_ring(data: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let mut bytes = Bytes(data.iter());
    let (_, size, packed, options) = kind(&mut bytes);
    let config = UmemConfig {
        frames: 256,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    };
    let (Some(ground), Ok(umem)) = (Ground::new(), Umem::map(&config)) else {
        return reached;
    };
    let Some(places) = ground.places(size, packed) else {
        return reached;
    };
    let mut ring: Box<dyn DriverRing> = if packed {
        Box::new(PackedDriver::new(places, options))
    } else {
        Box::new(SplitDriver::new(places, options))
    };
    let mut device = Taken {
        size,
        packed,
        ids: VecDeque::new(),
        index: 0,
        wrap: true,
    };
    let mut lent = Lent::new(&umem, size);
    let mut batch = Batch::new(&umem, 32);
    let len = Places::layout(size, packed).len;
    while !bytes.is_over() {
        match bytes.next() % 8 {
            0 => ground.poke(bytes.word(), bytes.word(), len),
            1 | 2 => {
                let want = usize::from(ring.room().min(u16::from(bytes.next())));
                lent.lend_free(&mut batch, want, 1500, 12, |offset| {
                    let id = ring.next_id();
                    ring.add(u64::from(offset), 1500, WRITE);
                    device.ids.push_back(id);
                    id
                });
                ring.publish();
                ring.wants_kick();
            }
            3..6 => {
                for _ in 0..=bytes.next() % 8 {
                    device.use_one(&ground, &mut bytes);
                }
            }
            _ => {
                for _ in 0..bytes.next() {
                    let Some(used) = ring.pop_used() else { break };
                    assert!(used.id < size);
                    reached.buffers += 1;
                    reached.several += u32::from(used.whole);
                    if let Some(frame) = lent.reclaim(used.id, used.len) {
                        assert!(frame.offset() as usize + frame.len() as usize <= umem.len());
                        reached.sound += 1;
                        ring.free(used.id);
                        batch.cache_mut().give(frame);
                    } else {
                        reached.refused += 1;
                    }
                }
                ring.enable_calls();
                ring.disable_calls();
            }
        }
        assert!(u32::from(ring.room()) + lent.count() <= u32::from(size));
    }
    reached.broken = ring.hostile() > 0;
    drop(batch);
    lent.recover();
    assert_eq!(umem.in_depot().0, 256, "a frame is lost, or there twice");
    reached
}
