//! The device boundary: which chunks a device holds, so that none can come back twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bifurcate_linux::{Error, Result};

use super::{Frame, Umem};

/// One direction of one device queue, as far as the ownership table knows it.
///
/// It cannot be cloned and lends and reclaims through `&mut`, so that only one thread at a time changes the
/// table entries that bear its number: a plain load and store are enough, without a locked instruction.
#[derive(Debug)]
pub struct Owner {
    umem: Arc<Umem>,
    number: u16,
    lent: u32,
}

impl Owner {
    /// A new owner with a number of its own.
    ///
    /// # Errors
    /// `ENOSPC` when a pool has had 65,534 owners.
    pub fn new(umem: &Arc<Umem>) -> Result<Owner> {
        match umem.new_owner() {
            Some(number) => Ok(Owner {
                umem: Arc::clone(umem),
                number,
                lent: 0,
            }),
            None => Err(Error::new("frame pool", "a 65535th device queue", 28)),
        }
    }

    /// The pool whose frames it lends.
    #[must_use]
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// How many frames the device holds.
    #[must_use]
    pub fn lent(&self) -> u32 {
        self.lent
    }

    /// Hands a frame to the device; gives its address for a descriptor.
    ///
    /// # Errors
    /// Gives the frame back when it is a jumbo frame or of another pool: a device cannot have those.
    #[inline]
    pub fn lend(&mut self, frame: Frame) -> std::result::Result<u64, Frame> {
        if frame.pool != self.umem.id() || frame.offset >= self.umem.area() {
            return Err(frame);
        }
        let chunk = (frame.offset >> self.umem.shift()) as usize;
        self.umem.table[chunk].store(self.number, Ordering::Relaxed);
        self.lent += 1;
        Ok(u64::from(frame.offset))
    }

    /// Counts `count` chunks of a fresh pool, from number `first` on, as lent: somebody else has put them into the
    /// device's fill ring. False, and nothing is lent, when they are not the next ones that are free.
    #[must_use]
    pub fn lend_first(&mut self, first: u32, count: u32) -> bool {
        let mut depot = self.umem.depot();
        let Some(rest) = depot.small.len().checked_sub(count as usize) else {
            return false;
        };
        // The lowest free chunk is on top.
        let expected = (first..first.saturating_add(count))
            .rev()
            .map(|chunk| chunk << self.umem.shift());
        if !depot.small[rest..].iter().copied().eq(expected) {
            return false;
        }
        for offset in depot.small.drain(rest..) {
            let entry = &self.umem.table[(offset >> self.umem.shift()) as usize];
            entry.store(self.number, Ordering::Relaxed);
        }
        self.lent += count;
        true
    }

    /// Takes back what the device names: `len` bytes at `addr`. Both are untrusted.
    ///
    /// `None` (count it as an invalid descriptor) when they do not lie in one chunk, or that chunk was not
    /// lent by this owner: never lent, or named before.
    #[inline]
    pub fn reclaim(&mut self, addr: u64, len: u32) -> Option<Frame> {
        if addr >= u64::from(self.umem.area()) {
            return None;
        }
        let offset = addr as u32;
        let size = self.umem.frame_size();
        if len > size - (offset & (size - 1)) {
            return None;
        }
        let entry = &self.umem.table[(offset >> self.umem.shift()) as usize];
        if entry.load(Ordering::Relaxed) != self.number {
            return None;
        }
        entry.store(0, Ordering::Relaxed);
        self.lent -= 1;
        Some(Frame {
            offset,
            len,
            pool: self.umem.id(),
        })
    }

    /// Returns everything still lent to the depot; gives how many frames. For when the device can write no
    /// more: its socket is closed, its DMA is off.
    pub fn recover(mut self) -> u32 {
        let umem = Arc::clone(&self.umem);
        let mut depot = umem.depot();
        for (chunk, entry) in umem.table.iter().enumerate() {
            if entry.load(Ordering::Relaxed) == self.number {
                entry.store(0, Ordering::Relaxed);
                depot.small.push((chunk as u32) << umem.shift());
            }
        }
        std::mem::take(&mut self.lent)
    }
}
