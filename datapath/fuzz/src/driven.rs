//! Both halves of a virtqueue, driven while the bytes of the input are written anywhere into it.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use bifurcate_datapath::frame::{Batch, Lent, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::{
    DeviceRing, DriverRing, Head, Options, PIECES_MAX, PackedDevice, PackedDriver, Piece, Places, Region,
    Regions, SplitDevice, SplitDriver, WRITE, Window,
};
use bifurcate_linux::memory::Mapping;

const MEMORY: usize = 1 << 14;
const AT: u64 = 1 << 20;

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
        let at = usize::from(at) % (len / 2) * 2;
        // SAFETY: `at` is within the mapping: `len` is at most its length.
        unsafe { self.0.base().as_ptr().add(at).cast::<u16>().write_volatile(value) }
    }
}

fn kind(bytes: &mut Bytes<'_>) -> (u16, bool, Options) {
    let first = bytes.next();
    let options = Options {
        event_idx: first & 2 != 0,
        in_order: first & 4 != 0,
    };
    (1 << (first >> 4 & 7), first & 1 != 0, options)
}

/// The device's half under a driver that writes anything.
///
/// # Panics
/// When something is wrong.
pub fn device_ring(data: &[u8]) {
    let mut bytes = Bytes(data.iter());
    let (size, packed, options) = kind(&mut bytes);
    let (Some(ground), base) = (
        Ground::new(),
        u32::from(bytes.word()) | u32::from(bytes.word()) << 16,
    ) else {
        return;
    };
    let (Some(places), Some(mut window)) = (ground.places(size, packed), ground.window()) else {
        return;
    };
    let mut ring: Box<dyn DeviceRing> = if packed {
        match PackedDevice::new(places, options, base) {
            Some(ring) => Box::new(ring),
            None => return,
        }
    } else {
        Box::new(SplitDevice::new(places, options, base as u16))
    };
    let len = Places::layout(size, packed).len;
    let mut heads = [Head::default(); 8];
    while !bytes.is_over() {
        match bytes.next() % 4 {
            0 | 1 => ground.poke(
                bytes.word(),
                bytes.word(),
                if bytes.next() & 1 == 0 { len } else { MEMORY },
            ),
            2 => {
                let Ok(count) = ring.look(&mut heads) else { return };
                for head in &heads[..count] {
                    let mut pieces = [Piece::default(); PIECES_MAX];
                    if let Some(count) = ring.pieces(head, &mut window, &mut pieces) {
                        assert!((1..=PIECES_MAX).contains(&count));
                        for piece in &pieces[..count] {
                            if let Some(at) = window.at(piece.addr, piece.len) {
                                assert!(ground.contains(at, piece.len as usize));
                            }
                        }
                    }
                    ring.complete(head, u32::from(bytes.next()));
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
}

/// The driver's half under a device that writes anything.
///
/// # Panics
/// When something is wrong.
pub fn driver_ring(data: &[u8]) {
    let mut bytes = Bytes(data.iter());
    let (size, packed, options) = kind(&mut bytes);
    let config = UmemConfig {
        frames: 256,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    };
    let (Some(ground), Ok(umem)) = (Ground::new(), Umem::map(&config)) else {
        return;
    };
    let Some(places) = ground.places(size, packed) else {
        return;
    };
    let mut ring: Box<dyn DriverRing> = if packed {
        Box::new(PackedDriver::new(places, options))
    } else {
        Box::new(SplitDriver::new(places, options))
    };
    let mut lent = Lent::new(&umem, size);
    let mut batch = Batch::new(&umem, 32);
    let len = Places::layout(size, packed).len;
    while !bytes.is_over() {
        match bytes.next() % 4 {
            0 | 1 => ground.poke(bytes.word(), bytes.word(), len),
            2 => {
                let want = usize::from(ring.room().min(u16::from(bytes.next())));
                lent.lend_free(&mut batch, want, 1500, 12, |offset| {
                    let id = ring.next_id();
                    ring.add(u64::from(offset), 1500, WRITE);
                    id
                });
                ring.publish();
                ring.wants_kick();
            }
            _ => {
                for _ in 0..bytes.next() {
                    let Some(used) = ring.pop_used() else { break };
                    assert!(used.id < size);
                    if let Some(frame) = lent.reclaim(used.id, used.len) {
                        assert!(frame.offset() as usize + frame.len() as usize <= umem.len());
                        ring.free(used.id);
                        batch.cache_mut().give(frame);
                    }
                }
                ring.enable_calls();
                ring.disable_calls();
            }
        }
        assert!(u32::from(ring.room()) + lent.count() <= u32::from(size));
    }
    drop(batch);
    lent.recover();
    assert_eq!(umem.in_depot().0, 256, "a frame is lost, or there twice");
}
