//! A card in memory: registers that a driver can start, and rings that it reads and writes as a card would, only when
//! it is told to. For tests, for the fuzz target, and for counting the engine's instructions.
//!
//! It reaches frames and rings by the addresses that the driver wrote into registers and descriptors, through a table of
//! the memory it was given: as behind an IOMMU, an address outside is a fault, and nothing is read or written.

#[cfg(test)]
pub mod checks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dma::Pool;
use super::{Link, Nic, Presence, Registers, Statistic};

/// A card that answers nothing but its rings: for what tries the engine alone.
#[derive(Debug)]
pub struct Bare;

impl Nic for Bare {
    fn driver(&self) -> &'static str {
        "bare"
    }
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn stop(&self) {}
    fn presence(&self) -> Presence {
        Presence::Here
    }
    fn link(&self) -> Link {
        Link::default()
    }
    fn statistics(&self) -> Vec<Statistic> {
        Vec::new()
    }
    fn arm(&self, _queue: u32) {}
    fn disarm(&self, _queue: u32) {}
}

/// Where a kind of card has what the model needs. Byte offsets; arrays begin at queue 0 and go on every `stride`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes from a queue's registers to the next queue's, both directions.
    pub stride: u32,
    /// RDBAL; RDBAH, RDLEN, RDH, RDT follow at 4, 8, 0x10 and 0x18.
    pub receive: u32,
    /// TDBAL; the others follow as for receiving.
    pub transmit: u32,
    /// The control register and its reset bit, which clears itself.
    pub control: (u32, u32),
    /// The status register and what it reads.
    pub status: (u32, u32),
    /// The counter of frames that found no buffer in a queue, an array with `stride`; none where there is none.
    pub drops: Option<u32>,
}

/// What a driver's write makes the card do besides keeping the value.
pub type Hook = fn(&mut BTreeMap<u32, u32>, u32, u32);

struct Region {
    address: u64,
    base: *mut u8,
    len: usize,
}

struct Inner {
    registers: BTreeMap<u32, u32>,
    regions: Vec<Region>,
    faults: u64,
    doorbells: u64,
}

// SAFETY: the pointers reach memory that the model's pool keeps mapped; it is reached under the lock.
unsafe impl Send for Inner {}

/// A card in memory.
pub struct Model {
    layout: Layout,
    hook: Option<Hook>,
    pool: Mutex<Option<Pool>>,
    inner: Mutex<Inner>,
}

impl Model {
    /// A card that was just switched on.
    #[must_use]
    pub fn new(layout: Layout, hook: Option<Hook>) -> Arc<Model> {
        Arc::new(Model {
            layout,
            hook,
            pool: Mutex::default(),
            inner: Mutex::new(Inner {
                registers: BTreeMap::from([layout.status]),
                regions: Vec::new(),
                faults: 0,
                doorbells: 0,
            }),
        })
    }

    /// Lets it reach the pool's frames and rings, at the addresses where the pool says they are.
    pub fn give(&self, pool: &Pool) {
        let slots = pool.slots();
        let mut inner = self.inner();
        inner.regions = vec![
            Region {
                address: pool.frames.address(0),
                base: pool.umem.base().as_ptr(),
                len: pool.umem.area() as usize,
            },
            Region {
                address: pool.slots_table().address(0),
                base: slots.base().as_ptr(),
                len: slots.len(),
            },
        ];
        drop(inner);
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
    }

    /// The value of a register.
    #[must_use]
    pub fn register(&self, offset: u32) -> u32 {
        self.inner().get(offset)
    }

    /// Sets a register as the card would.
    pub fn set_register(&self, offset: u32, value: u32) {
        self.inner().registers.insert(offset, value);
    }

    /// How often a descriptor named memory that the card may not reach.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.inner().faults
    }

    /// How often a tail register was written.
    #[must_use]
    pub fn doorbells(&self) -> u64 {
        self.inner().doorbells
    }

    /// A frame arrives at receive queue `queue`; false when it found no buffer.
    pub fn receive(&self, queue: u32, frame: &[u8]) -> bool {
        // DD, EOP.
        self.receive_as(queue, frame, 0b11, frame.len() as u32)
    }

    /// As [`Model::receive`], with any status word and any length claimed.
    pub fn receive_as(&self, queue: u32, frame: &[u8], status: u32, claimed: u32) -> bool {
        let ring = self.layout.receive + queue * self.layout.stride;
        let mut inner = self.inner();
        let Some((head, address, size)) = inner.head(ring) else {
            return false;
        };
        if head == inner.get(ring + 0x18) {
            if let Some(drops) = self.layout.drops {
                *inner
                    .registers
                    .entry(drops + queue * self.layout.stride)
                    .or_default() += 1;
            }
            return false;
        }
        let slot = address + u64::from(head) * 16;
        let buffer = inner.read(slot).unwrap_or(0);
        inner.copy_in(buffer, frame);
        inner.write(slot, 0);
        inner.write(slot + 8, u64::from(claimed & 0xffff) << 32 | u64::from(status));
        inner.registers.insert(ring + 0x10, (head + 1) % size);
        true
    }

    /// Sends what transmit queue `queue` has; gives the frames.
    pub fn transmit(&self, queue: u32) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.transmit_to(queue, |frame| frames.push(frame.to_vec()));
        frames
    }

    /// As [`Model::transmit`], into a function.
    pub fn transmit_to(&self, queue: u32, mut wire: impl FnMut(&[u8])) {
        let ring = self.layout.transmit + queue * self.layout.stride;
        let mut inner = self.inner();
        while let Some((head, address, size)) = inner.head(ring) {
            if head == inner.get(ring + 0x18) {
                break;
            }
            let slot = address + u64::from(head) * 16;
            let (buffer, command) = (inner.read(slot).unwrap_or(0), inner.read(slot + 8).unwrap_or(0));
            if let Some(bytes) = inner.bytes(buffer, (command & 0xffff) as usize) {
                wire(bytes);
            }
            // RS: say that it is done.
            if command & 1 << 27 != 0 {
                inner.write(slot + 8, command | 1 << 32);
            }
            inner.registers.insert(ring + 0x10, (head + 1) % size);
        }
    }

    /// Writes a word of a slot of a ring as a card that has gone wrong would. `receiving`: of a receive ring.
    pub fn scribble(&self, receiving: bool, queue: u32, slot: u32, word: u64, value: u64) {
        let base = if receiving {
            self.layout.receive
        } else {
            self.layout.transmit
        };
        let mut inner = self.inner();
        if let Some((_, address, size)) = inner.head(base + queue * self.layout.stride) {
            inner.write(address + u64::from(slot % size) * 16 + word % 2 * 8, value);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn get(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    /// A ring's head, address and number of slots; none when it has no slots.
    fn head(&self, ring: u32) -> Option<(u32, u64, u32)> {
        let size = self.get(ring + 8) / 16;
        let address = u64::from(self.get(ring)) | u64::from(self.get(ring + 4)) << 32;
        (size > 0).then(|| (self.get(ring + 0x10) % size, address, size))
    }

    fn at(&mut self, address: u64, len: usize) -> Option<*mut u8> {
        let found = self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.address)? as usize;
            (offset <= region.len && len <= region.len - offset).then(|| region.base.wrapping_add(offset))
        });
        self.faults += u64::from(found.is_none());
        found
    }

    fn bytes(&mut self, address: u64, len: usize) -> Option<&[u8]> {
        let at = self.at(address, len)?;
        // SAFETY: inside a region, which the pool keeps mapped; a frame that was given to the card is written by
        // nobody else until the card says it is done, which happens after this.
        Some(unsafe { std::slice::from_raw_parts(at, len) })
    }

    fn copy_in(&mut self, address: u64, bytes: &[u8]) {
        if let Some(at) = self.at(address, bytes.len()) {
            // SAFETY: as in `bytes`; the source is not of the pool.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) }
        }
    }

    fn read(&mut self, address: u64) -> Option<u64> {
        let at = self.at(address, 8)?.cast::<u64>();
        // SAFETY: inside a region; slots are aligned to 16 bytes, and a driver's own address registers say where.
        Some(unsafe { at.read_unaligned() })
    }

    fn write(&mut self, address: u64, value: u64) {
        if let Some(at) = self.at(address, 8) {
            // SAFETY: as in `read`.
            unsafe { at.cast::<u64>().write_unaligned(value) }
        }
    }
}

impl Registers for Model {
    fn read(&self, offset: u32) -> u32 {
        self.inner().get(offset)
    }

    fn write(&self, offset: u32, value: u32) {
        let layout = &self.layout;
        let mut inner = self.inner();
        let tail = |ring: u32| {
            offset >= ring && offset < ring + 16 * layout.stride && (offset - ring) % layout.stride == 0x18
        };
        inner.doorbells += u64::from(tail(layout.receive) || tail(layout.transmit));
        let (control, reset) = layout.control;
        let kept = if offset == control { value & !reset } else { value };
        inner.registers.insert(offset, kept);
        if let Some(hook) = self.hook {
            hook(&mut inner.registers, offset, value);
        }
    }
}
