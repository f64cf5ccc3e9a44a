//! What a device holds, by the ids under which it has them: for rings whose device names a buffer by a number.

use std::sync::Arc;

use super::{Batch, Frame, Umem};

/// A frame that the device holds: where it begins in the pool, and its bytes. Together, so that one store notes both.
#[derive(Clone, Copy, Debug)]
struct Slot {
    offset: u32,
    len: u32,
}

/// The slot of an id that the device does not hold: no frame begins there.
const FREE: Slot = Slot {
    offset: u32::MAX,
    len: 0,
};

impl Slot {
    #[inline]
    fn is_free(self) -> bool {
        self.offset == FREE.offset
    }
}

/// The frames that one ring's device holds. The device gives back an id, never an address: it cannot name memory that
/// it was not lent, nor the same frame twice.
#[derive(Debug)]
pub struct Lent {
    umem: Arc<Umem>,
    /// By id.
    slots: Box<[Slot]>,
    count: u32,
}

impl Lent {
    /// Nothing lent yet, ids 0 to `ids` - 1.
    #[must_use]
    pub fn new(umem: &Arc<Umem>, ids: u16) -> Lent {
        Lent {
            umem: Arc::clone(umem),
            slots: vec![FREE; usize::from(ids)].into(),
            count: 0,
        }
    }

    /// The pool whose frames it lends.
    #[must_use]
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// How many frames the device holds.
    #[must_use]
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Hands a frame to the device under `id`; gives where its first byte is in the pool.
    ///
    /// # Errors
    /// Gives the frame back when it is of another pool, the id is in use or there is no such id.
    #[inline]
    pub fn lend(&mut self, id: u16, frame: Frame) -> Result<u32, Frame> {
        match self.slots.get_mut(usize::from(id)) {
            Some(slot) if slot.is_free() && frame.pool == self.umem.id() => {
                *slot = Slot {
                    offset: frame.offset,
                    len: frame.len,
                };
                self.count += 1;
                Ok(frame.offset)
            }
            _ => Err(frame),
        }
    }

    /// Takes back what the device calls `id`, `len` bytes long. Both are untrusted.
    ///
    /// `None` (count it as an invalid descriptor) when the device does not hold that id; a length beyond the frame's
    /// chunk is cut to it, for the caller to judge.
    #[inline]
    pub fn reclaim(&mut self, id: u16, len: u32) -> Option<Frame> {
        let slot = self.slots.get_mut(usize::from(id))?;
        let held = std::mem::replace(slot, FREE);
        if held.is_free() {
            return None;
        }
        let offset = held.offset;
        self.count -= 1;
        Some(Frame {
            offset,
            len: len.min(self.umem.chunk_end(offset) - offset),
            pool: self.umem.id(),
        })
    }

    /// Lends free frames of the batch's cache under the ids that `added` gives, which is called with where each has room
    /// for `len` bytes: `lead` bytes that the device writes first, and the frame after them. Gives how many; fewer than
    /// `count` when the pool has no more.
    ///
    /// The lead begins on a line of the CPU's cache, so that a short frame shares its first line with it: what looks at
    /// both fetches one line less.
    #[inline]
    pub fn lend_free(
        &mut self,
        batch: &mut Batch,
        count: usize,
        len: u32,
        lead: u32,
        mut added: impl FnMut(u32) -> u16,
    ) -> usize {
        const BUNDLE: usize = 32;
        let mut done = 0;
        let mut offsets = [0; BUNDLE];
        while done < count {
            let want = BUNDLE.min(count - done);
            let got = batch.cache_mut().take_offsets(&mut offsets[..want], len);
            for &offset in &offsets[..got] {
                let id = added(offset);
                match self.slots.get_mut(usize::from(id)) {
                    Some(slot) if slot.is_free() => {
                        *slot = Slot {
                            offset: offset + lead.min(len),
                            len: len.saturating_sub(lead),
                        };
                        self.count += 1;
                    }
                    // The ring named an id that the device holds: the frame is with the device all the same.
                    _ => debug_assert!(false, "id {id} is lent"),
                }
            }
            done += got;
            if got < want {
                break;
            }
        }
        done
    }

    /// Everything still lent, each frame as long as it was lent, to be lent again or given back: when the device can
    /// write no more.
    pub fn drain(&mut self) -> impl Iterator<Item = (u16, Frame)> + '_ {
        self.count = 0;
        let pool = self.umem.id();
        self.slots.iter_mut().enumerate().filter_map(move |(id, slot)| {
            let held = std::mem::replace(slot, FREE);
            (!held.is_free()).then(|| {
                let frame = Frame {
                    offset: held.offset,
                    len: held.len,
                    pool,
                };
                (id as u16, frame)
            })
        })
    }

    /// Returns everything still lent to the depot; gives how many frames. For when the device can write no more.
    pub fn recover(mut self) -> u32 {
        let umem = Arc::clone(&self.umem);
        let mut depot = umem.depot();
        let mut count = 0;
        for (_, frame) in self.drain() {
            count += 1;
            let start = umem.chunk_start(frame.offset);
            if start < umem.area() {
                depot.small.push(start);
            } else {
                depot.jumbo.push(start);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Pages, UmemConfig};

    fn pool() -> Arc<Umem> {
        Umem::map(&UmemConfig {
            frames: 64,
            frame_size: 2048,
            jumbo_frames: 1,
            pages: Pages::Ordinary,
        })
        .unwrap()
    }

    #[test]
    fn an_id_comes_back_once_and_only_when_it_was_lent() {
        let umem = pool();
        let mut batch = Batch::new(&umem, 32);
        let mut lent = Lent::new(&umem, 4);
        let frame = batch.cache_mut().take().unwrap();
        let offset = lent.lend(3, frame).unwrap();
        let again = batch.cache_mut().take().unwrap();
        let again = lent.lend(3, again).unwrap_err();
        let again = lent.lend(4, again).unwrap_err();
        batch.cache_mut().give(again);
        assert_eq!(
            (lent.count(), lent.reclaim(2, 60), lent.reclaim(9, 60)),
            (1, None, None)
        );
        let back = lent.reclaim(3, 60).unwrap();
        assert_eq!((back.offset(), back.len(), lent.count()), (offset, 60, 0));
        assert_eq!(lent.reclaim(3, 60), None);
        batch.cache_mut().give(back);
    }

    #[test]
    fn a_length_beyond_the_chunk_is_cut_to_it() {
        let umem = pool();
        let mut batch = Batch::new(&umem, 32);
        let mut lent = Lent::new(&umem, 4);
        lent.lend(0, batch.cache_mut().take().unwrap()).unwrap();
        let back = lent.reclaim(0, u32::MAX).unwrap();
        assert_eq!(back.len(), 2048 - crate::frame::HEADROOM);
        batch.cache_mut().give(back);
    }

    #[test]
    fn what_is_still_lent_is_drained_as_long_as_it_was() {
        let umem = pool();
        let mut batch = Batch::new(&umem, 32);
        let mut lent = Lent::new(&umem, 8);
        let mut expected = Vec::new();
        for (id, len) in [(1, 60), (4, 0), (6, 9000)] {
            let frame = batch.cache_mut().copy_in(&vec![id as u8; len]).unwrap();
            expected.push((id, frame.offset(), len as u32));
            lent.lend(id, frame).unwrap();
        }
        lent.lend_free(&mut batch, 1, 1500, 12, |offset| {
            expected.push((7, offset + 12, 1488));
            7
        });
        let drained: Vec<_> = lent.drain().collect();
        let got: Vec<_> = drained.iter().map(|(id, f)| (*id, f.offset(), f.len())).collect();
        assert_eq!((got, lent.count()), (expected, 0));
        assert_eq!(batch.cache().bytes(&drained[0].1), [1; 60]);
        assert_eq!(lent.drain().count(), 0);
        for (_, frame) in drained {
            batch.cache_mut().give(frame);
        }
    }

    #[test]
    fn what_is_still_lent_is_recovered_jumbo_frames_too() {
        let umem = pool();
        let mut batch = Batch::new(&umem, 32);
        let mut lent = Lent::new(&umem, 8);
        let mut ids = 0..;
        assert_eq!(
            lent.lend_free(&mut batch, 5, 1500, 12, |_| ids.next().unwrap()),
            5
        );
        lent.lend(7, batch.cache_mut().take_jumbo().unwrap()).unwrap();
        drop(batch);
        assert_eq!(umem.in_depot(), (59, 0));
        assert_eq!(lent.recover(), 6);
        assert_eq!(umem.in_depot(), (64, 1));
    }
}
