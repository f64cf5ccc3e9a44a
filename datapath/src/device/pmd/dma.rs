//! Memory that a card reads and writes: the slots of rings, and where the pool lies for it.

use std::sync::Arc;

use bifurcate_linux::Result;
use bifurcate_linux::card::Card;
use bifurcate_linux::dma::DmaTable;
use bifurcate_linux::memory::Mapping;

use crate::frame::{Frame, Umem};

/// Bytes of a slot.
pub const SLOT: usize = 16;

/// The slots of one ring: two words each.
#[derive(Debug)]
pub struct Slots {
    words: *mut u64,
    mask: u32,
    /// The address of the first slot for the device.
    address: u64,
    _memory: Arc<Mapping>,
}

// SAFETY: the pointer reaches memory that `_memory` keeps mapped, which is tied to no thread.
unsafe impl Send for Slots {}

impl Slots {
    /// Number of slots, a power of two.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.mask + 1
    }

    /// What a slot's number is taken with.
    #[must_use]
    #[inline]
    pub fn mask(&self) -> u32 {
        self.mask
    }

    /// The address of the first slot for the device.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Copies word `word` (0 or 1) of slot `slot`, once.
    #[must_use]
    #[inline]
    pub fn read(&self, slot: u32, word: usize) -> u64 {
        // SAFETY: masked, so one of the 2 * size words that `carve` found room for. Volatile: the device may write at
        // any time; the value is copied once, and every bit pattern is a number.
        u64::from_le(unsafe {
            self.words
                .add((slot & self.mask) as usize * 2 + (word & 1))
                .read_volatile()
        })
    }

    /// Writes word `word` (0 or 1) of slot `slot`.
    #[inline]
    pub fn write(&mut self, slot: u32, word: usize, value: u64) {
        // SAFETY: as in `read`; no reference into the slots exists anywhere.
        unsafe {
            self.words
                .add((slot & self.mask) as usize * 2 + (word & 1))
                .write_volatile(value.to_le());
        }
    }
}

/// Where the memory of rings and frames lies for the card.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The frames.
    pub umem: Arc<Umem>,
    /// Where they lie for the card.
    pub frames: Arc<DmaTable>,
    slots: Arc<Mapping>,
    slots_at: Arc<DmaTable>,
    taken: usize,
}

impl Pool {
    /// Makes memory for `rings` rings of `size` slots, and lets the card have it and the frames, and nothing else.
    ///
    /// # Errors
    /// `ENOMEM`; `EINVAL` when there is no IOMMU and the pool is not in huge pages.
    pub fn map(card: &Card, umem: &Arc<Umem>, rings: usize, size: u32) -> Result<Pool> {
        Pool::map_bytes(card, umem, umem.area() as usize, rings * size as usize * SLOT)
    }

    /// As [`Pool::map`]: the first `reach` bytes of the frames, and `bytes` for rings of whatever kind.
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn map_bytes(card: &Card, umem: &Arc<Umem>, reach: usize, bytes: usize) -> Result<Pool> {
        let frames = card.map_memory(umem.mapping(), umem.page_kind(), reach)?;
        let (slots, slots_at) = card.ring_memory(bytes)?;
        Ok(Pool {
            umem: Arc::clone(umem),
            frames: Arc::new(frames),
            slots: Arc::new(slots),
            slots_at: Arc::new(slots_at),
            taken: 0,
        })
    }

    /// As [`Pool::map`] without a card: frames at `frames_at`, rings at `slots_at` for whoever plays the card.
    ///
    /// # Errors
    /// `ENOMEM`.
    #[cfg(any(test, feature = "model"))]
    pub fn anonymous(
        umem: &Arc<Umem>,
        rings: usize,
        size: u32,
        frames_at: u64,
        slots_at: u64,
    ) -> Result<Pool> {
        let slots = Arc::new(Mapping::anonymous(rings * size as usize * SLOT)?);
        Ok(Pool {
            umem: Arc::clone(umem),
            frames: Arc::new(DmaTable::contiguous(frames_at, umem.len())),
            slots_at: Arc::new(DmaTable::contiguous(slots_at, slots.len())),
            slots,
            taken: 0,
        })
    }

    /// The memory of all rings.
    #[must_use]
    pub fn slots(&self) -> &Arc<Mapping> {
        &self.slots
    }

    /// Where the memory of all rings lies for the card.
    #[must_use]
    pub fn slots_table(&self) -> &Arc<DmaTable> {
        &self.slots_at
    }

    /// The next ring of `size` slots, all zero. A ring begins at a multiple of its own length, so that it never lies
    /// across two huge pages.
    ///
    /// # Panics
    /// For more rings than were asked for.
    #[must_use]
    pub fn carve(&mut self, size: u32) -> Slots {
        assert!(size.is_power_of_two(), "a ring of {size} slots");
        let bytes = size as usize * SLOT;
        let at = self.taken.next_multiple_of(bytes);
        assert!(
            at + bytes <= self.slots.len(),
            "more rings than there is memory for"
        );
        self.taken = at + bytes;
        // SAFETY: checked just above to lie in the mapping.
        let words = unsafe { self.slots.base().as_ptr().add(at) }.cast();
        Slots {
            words,
            mask: size - 1,
            address: self.slots_at.address(at as u32),
            _memory: Arc::clone(&self.slots),
        }
    }

    /// Where a frame begins, for the card.
    #[must_use]
    pub fn address(&self, frame: &Frame) -> u64 {
        #[cfg(feature = "wrong-dma")]
        if let Some(wrong) = super::wrong::take() {
            return wrong;
        }
        self.frames.address(frame.offset())
    }
}
