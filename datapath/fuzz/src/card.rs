//! The descriptor-ring engine, over a card that writes whatever the bytes of the input say into its rings.

use std::sync::Arc;

use bifurcate_datapath::device::pmd::model::{Bare, Layout, Model};
use bifurcate_datapath::device::pmd::{
    ADVANCED, Config, LEGACY, Pool, Quiet, ReadWrite, Register, Registers, Rings, build,
};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};

const FRAMES: u32 = 256;
const FRAME: u32 = 2048;
/// Where rings' registers are, as on Intel's controllers: address, length, head and tail from there on.
const RECEIVE: u32 = 0xc000;
const TRANSMIT: u32 = 0xe000;

/// How far an input came, so that a run on fixed bytes can tell that it tried what it is there to try.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Frames that were received.
    pub received: u64,
    /// Descriptors that were no frame.
    pub refused: u64,
    /// Frames that the card sent.
    pub sent: u64,
    /// Descriptors that named memory which the card cannot reach: what it writes into a slot makes it wrong there itself.
    pub faults: u64,
}

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.next()))
    }
}

/// Status, length and indices that no card writes: never a panic, never a frame outside of the pool, in two hands, or
/// lost at the end.
///
/// # Panics
/// When something is wrong.
pub fn card(data: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let mut bytes = Bytes(data.iter());
    let config = UmemConfig {
        frames: FRAMES,
        frame_size: FRAME,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    };
    let Ok(umem) = Umem::map(&config) else {
        return reached;
    };
    let Ok(mut pool) = Pool::anonymous(&umem, 2, 64, 1 << 32, 2 << 32) else {
        return reached;
    };
    let model = Model::new(
        Layout {
            stride: 0x40,
            receive: RECEIVE,
            transmit: TRANSMIT,
            control: (0, 0),
            status: (8, 0),
            drops: None,
        },
        None,
    );
    model.give(&pool);
    let registers: Arc<dyn Registers> = Arc::clone(&model) as _;
    let wanted = Config {
        ring_size: 64,
        ..Config::default()
    };
    let tail = |base| Register::<ReadWrite>::new("tail", base + 0x18, 0x40);
    let rings = Rings::carve(&mut pool, &wanted, tail(RECEIVE), tail(TRANSMIT));
    for (base, address) in [
        (RECEIVE, rings[0].rx.address()),
        (TRANSMIT, rings[0].tx.address()),
    ] {
        registers.write(base, address as u32);
        registers.write(base + 4, (address >> 32) as u32);
        registers.write(base + 8, 64 * 16);
    }
    let shared = Arc::new(Quiet::new(Box::new(Bare), None, pool.clone()));
    let words = if bytes.next() & 1 == 0 { ADVANCED } else { LEGACY };
    let Ok(port) = build("fuzz", rings, words, &registers, &pool, &shared) else {
        return reached;
    };
    let mut queues = port.queues;
    let mut batch = Batch::new(&umem, 32);
    while bytes.0.len() > 0 {
        match bytes.next() % 8 {
            0 => {
                model.receive(0, &[3; 60]);
            }
            1 => {
                // Mostly done and of a length that can be: a slot that is not done stops the ring until it is written.
                let (status, len) = (bytes.word() as u32, bytes.word() as u32);
                let status = status | u32::from(status >> 28 != 0);
                let len = if len >> 29 == 0 { len } else { len % 2100 };
                model.receive_as(0, &[3; 60], status, len);
            }
            2 | 3 => {
                let (receiving, place, word) = (bytes.next() & 1 == 0, bytes.next(), bytes.next().into());
                let head = model.register(if receiving { RECEIVE } else { TRANSMIT } + 0x10);
                // Mostly near to where the two are at work.
                let slot = match place & 0xc0 {
                    0 => u32::from(place),
                    _ => head.wrapping_add(u32::from(place % 8)).wrapping_sub(4),
                };
                model.scribble(receiving, 0, slot, word, bytes.word());
            }
            4 | 5 => {
                queues[0].rx.poll(&mut batch);
                for (offset, len) in batch.places() {
                    assert!(len >= 14 && offset + len <= umem.area());
                    assert_eq!(offset / FRAME, (offset + len - 1) / FRAME, "across two frames");
                }
                batch.clear();
            }
            6 => {
                batch.fill_free(usize::from(bytes.next() % 32), 60);
                batch.send_all(0);
                batch.sending_to(0);
                queues[0].tx.send(&mut batch);
                batch.clear();
            }
            _ => reached.sent += model.transmit(0).len() as u64,
        }
    }
    let counters = queues[0].rx.counters();
    reached.received = counters.received.get();
    reached.refused = counters.invalid_descriptor.get() + counters.too_long.get();
    reached.faults = model.faults();
    drop((queues, batch));
    drop(shared);
    assert_eq!(
        umem.in_depot().0,
        FRAMES as usize,
        "a frame is lost, or there twice"
    );
    reached
}
