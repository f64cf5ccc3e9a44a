//! The memory of all rings of a device: where each is here, and where the device finds it.

use std::sync::Arc;

use bifurcate_linux::dma::DmaTable;
use bifurcate_linux::memory::Mapping;

use crate::ring::virtio::{NET_HEADER, Piece, Places, table};

/// Bytes of an indirect table of ours: the header and the frame.
const TABLE: usize = 32;

/// Bytes after a ring's tables: a header of zeros, for frames that have no room for theirs.
const ZEROS: usize = 128;

/// Where a ring is, as the device knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingAt {
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

/// The rings of a device, each with its indirect tables, one after another.
#[derive(Debug)]
pub(super) struct RingMemory {
    mapping: Arc<Mapping>,
    at: Arc<DmaTable>,
    /// Where in the mapping the first one begins.
    from: usize,
    size: u16,
    /// Bytes from one ring to the next.
    stride: usize,
    tables_at: usize,
}

impl RingMemory {
    /// Bytes that a ring of `size` slots needs, in either layout, with its tables.
    pub(super) fn bytes(size: u16) -> usize {
        tables_at(size) + usize::from(size) * TABLE + ZEROS
    }

    /// Rings of `size` slots, `stride` bytes apart, from byte `from` of `mapping` on, which lies at `at` for the device.
    ///
    /// # Panics
    /// When a ring does not fit its stride.
    pub(super) fn new(
        mapping: Arc<Mapping>,
        at: Arc<DmaTable>,
        from: usize,
        size: u16,
        stride: usize,
    ) -> RingMemory {
        assert!(
            RingMemory::bytes(size) <= stride && (stride | from).is_multiple_of(ZEROS),
            "{stride} bytes for a ring of {size}"
        );
        RingMemory {
            mapping,
            at,
            from,
            size,
            stride,
            tables_at: tables_at(size),
        }
    }

    fn address(&self, offset: usize) -> u64 {
        self.at.address(offset as u32)
    }

    /// Ring `index` in memory here, and where the device finds it.
    ///
    /// # Panics
    /// For a ring that there is no memory for.
    pub(super) fn places(&self, index: usize, packed: bool) -> (Places, RingAt) {
        let layout = Places::layout(self.size, packed);
        let from = self.from + index * self.stride;
        assert!(
            from + self.stride <= self.mapping.len(),
            "no memory for ring {index}"
        );
        let keep: Arc<Mapping> = Arc::clone(&self.mapping);
        // SAFETY: ring `index` has `stride` bytes of the mapping from `from` on, checked just above, and the layout is
        // within the first `tables_at` of them; `keep` is the mapping.
        let places = unsafe {
            let base = self.mapping.base().as_ptr().add(from);
            Places::new(
                base,
                base.add(layout.driver),
                base.add(layout.device),
                self.size,
                packed,
                keep,
            )
        };
        let places = places.expect("the size was checked, and the layout is aligned");
        let at = RingAt {
            desc: self.address(from),
            driver: self.address(from + layout.driver),
            device: self.address(from + layout.device),
        };
        (places, at)
    }

    /// Writes the indirect table of id `id` of ring `index`, which is one that [`RingMemory::places`] gave: a header of
    /// zeros, and `len` bytes at `addr`. Gives where the device finds it, and its bytes.
    pub(super) fn indirect(&self, index: usize, packed: bool, id: u16, addr: u64, len: u32) -> (u64, u32) {
        let size = usize::from(self.size);
        let from = self.from + index * self.stride + self.tables_at;
        let zeros = self.address(from + size * TABLE);
        let at = from + usize::from(id).min(size - 1) * TABLE;
        let read = |addr, len| Piece {
            addr,
            len,
            write: false,
        };
        let entries = table([read(zeros, NET_HEADER), read(addr, len)], packed);
        for (place, [addr, rest]) in entries.into_iter().enumerate() {
            // SAFETY: the tables have `size` times 32 bytes from `from` on, within the ring's `stride`; aligned to 16;
            // the device does not have this id now.
            unsafe {
                let entry = self.mapping.base().as_ptr().add(at + 16 * place).cast::<u64>();
                entry.write_volatile(addr);
                entry.add(1).write_volatile(rest);
            }
        }
        (self.address(at), TABLE as u32)
    }
}

/// Where the tables of a ring begin: after the larger layout.
fn tables_at(size: u16) -> usize {
    Places::layout(size, false)
        .len
        .max(Places::layout(size, true).len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_chained_in_the_split_layout_and_has_no_flags_in_the_packed_one() {
        let stride = RingMemory::bytes(8).next_multiple_of(ZEROS);
        let mapping = Arc::new(Mapping::anonymous(2 * stride).unwrap());
        let at = Arc::new(DmaTable::contiguous(0, mapping.len()));
        let rings = RingMemory::new(Arc::clone(&mapping), at, 0, 8, stride);
        // Length, flags and next; length, id and flags.
        for (packed, header, packet) in [
            (false, [12, 0, 1, 1], [500, 0, 0, 0]),
            (true, [12, 0, 0, 0], [500, 0, 0, 0]),
        ] {
            let (from, len) = rings.indirect(1, packed, 3, 0x1_2345_6780, 500);
            assert_eq!(len, 32);
            let word = |at: usize| {
                // SAFETY: within the mapping, and aligned.
                unsafe {
                    mapping
                        .base()
                        .as_ptr()
                        .add(from as usize + at)
                        .cast::<u16>()
                        .read_volatile()
                }
            };
            let four = |at: usize| [0, 2, 4, 6].map(|more| word(at + more));
            assert_eq!((four(8), four(24)), (header, packet), "packed {packed}");
            assert_eq!(four(16), [0x6780, 0x2345, 1, 0]);
        }
    }
}
