//! A thread's free frames: last in first out over the depot, so that a frame is reused while the CPU's cache
//! still has it.

use std::sync::Arc;

use super::{Frame, HEADROOM, Umem};
use crate::ring::virtio::prefetch_write;

/// Most free frames a cache holds before it gives a bundle to the depot.
const CACHE_MAX: usize = 512;
/// Free jumbo frames a cache holds before it gives them all to the depot.
const JUMBO_KEPT: usize = 8;
/// Bytes that the starts of two colours are apart: a line of the CPU's cache.
const COLOUR: u32 = 64;
/// Offsets that differ by 4 KiB fall into the same set of the CPU's first cache (64 sets of 64 bytes).
const WAY_SHIFT: u32 = 12;
/// Colours, less one.
const COLOURS: u32 = 7;
/// Frames moved between cache and depot at once.
const BUNDLE: usize = 256;

/// A thread's stock of free frames, and its access to their bytes.
#[derive(Debug)]
pub struct Cache {
    umem: Arc<Umem>,
    /// Offsets of free chunks. Invariant: chunk starts of `umem` that nobody else has.
    stack: Box<[u32; CACHE_MAX]>,
    top: usize,
    /// Give frames away above this: the cache's share of the pool when it last looked, CACHE_MAX at most.
    limit: usize,
    /// Offsets of free jumbo chunks, room for all of them reserved.
    jumbo: Vec<u32>,
    pub(super) id: u32,
    mask: u32,
    area: u32,
}

impl Cache {
    /// An empty cache over the pool's depot.
    #[must_use]
    pub fn new(umem: &Arc<Umem>) -> Cache {
        umem.cache_made();
        Cache {
            stack: Box::new([0; CACHE_MAX]),
            top: 0,
            limit: umem.share_of_a_cache().clamp(1, CACHE_MAX),
            jumbo: Vec::with_capacity(umem.jumbo_frames() as usize),
            id: umem.id(),
            mask: !(umem.frame_size() - 1),
            area: umem.area(),
            umem: Arc::clone(umem),
        }
    }

    /// The pool.
    #[must_use]
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// A free frame, empty, with [`HEADROOM`] bytes before it. `None` when pool and cache have none.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        if self.top == 0 && self.refill() == 0 {
            return None;
        }
        self.top -= 1;
        Some(Frame {
            offset: self.stack[self.top & (CACHE_MAX - 1)] + HEADROOM,
            len: 0,
            pool: self.id,
        })
    }

    /// A free frame of `len` bytes, whatever its chunk holds, on a start of its own [colour](Cache::colours).
    #[inline]
    pub fn take_coloured(&mut self, len: u32) -> Option<Frame> {
        let colours = self.colours(len)?;
        let mut frame = self.take()?;
        frame.offset += ((frame.offset >> WAY_SHIFT) & colours) * COLOUR;
        frame.len = len;
        Some(frame)
    }

    /// How many colours, less one, frames of `len` bytes can have: a mask. `None` when `len` does not fit.
    ///
    /// Frames start a power of two apart, so their headers would all fall into the same few sets of the CPU's
    /// first cache (64 sets of 64 bytes in 4 KiB); short frames are spread over eight times as many, those that leave
    /// less room over four or two times.
    #[inline]
    pub(super) fn colours(&self, len: u32) -> Option<u32> {
        let spare = (self.umem.frame_size() - HEADROOM).checked_sub(len)? / COLOUR;
        Some(match spare {
            COLOURS.. => COLOURS,
            3.. => 3,
            1.. => 1,
            0 => 0,
        })
    }

    /// Takes free frames for `len` bytes and writes where those start; gives how many.
    #[inline]
    pub(super) fn take_offsets(&mut self, out: &mut [u32], len: u32) -> usize {
        let Some(colours) = self.colours(len) else {
            return 0;
        };
        let mut done = 0;
        while done < out.len() {
            if self.top == 0 && self.refill() == 0 {
                break;
            }
            let count = self.top.min(out.len() - done);
            let from = &self.stack[self.top - count..self.top];
            // Upwards: the order within the burst does not matter, and both sides are walked the same way.
            for (to, &offset) in out[done..done + count].iter_mut().zip(from) {
                *to = offset + HEADROOM + ((offset >> WAY_SHIFT) & colours) * COLOUR;
            }
            self.top -= count;
            done += count;
        }
        done
    }

    /// A free jumbo frame, empty, with [`HEADROOM`] bytes before it. `None` when there is none.
    pub fn take_jumbo(&mut self) -> Option<Frame> {
        let offset = self.jumbo.pop().or_else(|| self.umem.depot().jumbo.pop())?;
        Some(Frame {
            offset: offset + HEADROOM,
            len: 0,
            pool: self.id,
        })
    }

    /// A free frame with room for `len` bytes: an ordinary one where that is enough, else a jumbo frame.
    #[inline]
    pub fn take_for(&mut self, len: usize) -> Option<Frame> {
        if len <= (self.umem.frame_size() - HEADROOM) as usize {
            self.take()
        } else if len <= (super::JUMBO_SIZE - HEADROOM) as usize {
            self.take_jumbo()
        } else {
            None
        }
    }

    /// Bytes of the longest packet that a frame of this pool holds.
    #[must_use]
    pub fn largest(&self) -> usize {
        let jumbo = self.umem.jumbo_frames() > 0;
        let size = if jumbo {
            super::JUMBO_SIZE
        } else {
            self.umem.frame_size()
        };
        (size - HEADROOM) as usize
    }

    /// A frame with a copy of `bytes`. `None` when there is no free frame that large.
    pub fn copy_in(&mut self, bytes: &[u8]) -> Option<Frame> {
        let mut frame = self.take_for(bytes.len())?;
        self.append(&mut frame, bytes);
        Some(frame)
    }

    /// Gives a frame back to the pool. One of another pool is lost to that pool, which a debug build reports.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        debug_assert_eq!(frame.pool, self.id, "a frame of another pool");
        if frame.pool == self.id {
            self.give_offset(frame.offset);
        }
    }

    /// Gives back the chunk that `offset` lies in; the caller owned it.
    #[inline]
    pub(super) fn give_offset(&mut self, offset: u32) {
        if offset >= self.area {
            return self.give_jumbo(offset);
        }
        if self.top >= self.limit {
            self.spill();
        }
        self.stack[self.top & (CACHE_MAX - 1)] = offset & self.mask;
        self.top += 1;
    }

    /// Gives back the chunks of a batch at once; the caller owned them.
    #[inline]
    pub(super) fn give_offsets(&mut self, offsets: &[u32]) {
        // No early exit, so that it is done several at a time; offsets are below 2^31.
        let jumbo = offsets
            .iter()
            .fold(false, |any, &o| any | (o as i32 >= self.area as i32));
        if jumbo || self.top + offsets.len() > self.limit {
            for &offset in offsets {
                self.give_offset(offset);
            }
            return;
        }
        let mask = self.mask;
        for (to, offset) in self.stack[self.top..].iter_mut().zip(offsets) {
            *to = offset & mask;
        }
        self.top += offsets.len();
    }

    #[cold]
    fn give_jumbo(&mut self, offset: u32) {
        self.jumbo.push(self.umem.chunk_start(offset));
        if self.jumbo.len() > JUMBO_KEPT {
            self.umem.depot().jumbo.append(&mut self.jumbo);
        }
    }

    /// The frame's bytes; none when it is of another pool.
    #[inline]
    #[must_use]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        if frame.pool != self.id {
            return &[];
        }
        // SAFETY: Frame's invariant: the range lies in one chunk of this pool that this Frame alone owns; it is
        // borrowed, so nobody has it mutably.
        unsafe { self.slice(frame.offset, frame.len) }
    }

    /// The frame's bytes, to be changed; none when it is of another pool.
    #[inline]
    #[must_use]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        if frame.pool != self.id {
            return &mut [];
        }
        // SAFETY: Frame's invariant: the range lies in one chunk of this pool, which stays mapped while
        // `self.umem` lives; the chunk belongs to this Frame alone, which is borrowed mutably for as long.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.umem.base().as_ptr().add(frame.offset as usize),
                frame.len as usize,
            )
        }
    }

    /// The `N` bytes before the frame's first, in its chunk: where a device's header goes. `None` when there is no room
    /// for them, or the frame is of another pool.
    #[inline]
    #[must_use]
    pub fn before_mut<'a, const N: usize>(&'a self, frame: &'a mut Frame) -> Option<&'a mut [u8; N]> {
        let room = frame.pool == self.id && frame.offset - self.umem.chunk_start(frame.offset) >= N as u32;
        // SAFETY: as in `bytes_mut`: N bytes of the chunk that this Frame alone owns, borrowed mutably for as long.
        room.then(|| unsafe {
            &mut *self
                .umem
                .base()
                .as_ptr()
                .add(frame.offset as usize - N)
                .cast::<[u8; N]>()
        })
    }

    /// Sets the frame's length. False, and nothing changed, when its chunk has no room for that.
    #[inline]
    pub fn set_len(&self, frame: &mut Frame, len: usize) -> bool {
        let fits = len <= self.room(frame);
        if fits {
            frame.len = len as u32;
        }
        fits
    }

    /// Moves the frame's first byte by `by` bytes, keeping its end: back for a header in front, forward to cut
    /// one off. False, and nothing changed, when it would leave the chunk or pass the end.
    pub fn move_start(&self, frame: &mut Frame, by: i32) -> bool {
        if frame.pool != self.id {
            return false;
        }
        let offset = i64::from(frame.offset) + i64::from(by);
        let end = i64::from(frame.offset) + i64::from(frame.len);
        let fits = offset >= i64::from(self.umem.chunk_start(frame.offset)) && offset <= end;
        // A frame that starts at the end of its chunk would belong to the next one.
        let fits = fits && offset < i64::from(self.umem.chunk_end(frame.offset));
        if fits {
            frame.offset = offset as u32;
            frame.len = (end - offset) as u32;
        }
        fits
    }

    /// Adds bytes at the frame's end. False, and nothing changed, when its chunk has no room for them.
    pub fn append(&self, frame: &mut Frame, bytes: &[u8]) -> bool {
        let old = frame.len as usize;
        let fits = bytes.len() <= self.room(frame).saturating_sub(old);
        if fits {
            frame.len += bytes.len() as u32;
            self.bytes_mut(frame)[old..].copy_from_slice(bytes);
        }
        fits
    }

    /// Bytes from the frame's start to the end of its chunk; 0 when it is of another pool.
    #[inline]
    #[must_use]
    pub fn room(&self, frame: &Frame) -> usize {
        if frame.pool != self.id {
            return 0;
        }
        (self.umem.chunk_end(frame.offset) - frame.offset) as usize
    }

    /// Asks the CPU to fetch the frame's first bytes, for a handler that is about to look at them.
    #[inline]
    pub fn prefetch(&self, frame: &Frame) {
        self.prefetch_at(frame.offset);
    }

    #[inline]
    pub(super) fn prefetch_at(&self, offset: u32) {
        let at = self.umem.base().as_ptr().wrapping_add(offset as usize);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint: it faults on no address and changes no memory.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// As [`Cache::prefetch`], for bytes that are about to be changed.
    #[inline]
    pub(super) fn prefetch_write_at(&self, offset: u32) {
        prefetch_write(self.umem.base().as_ptr().wrapping_add(offset as usize));
    }

    /// Free frames in this cache.
    #[must_use]
    pub fn held(&self) -> usize {
        self.top
    }

    /// Returns every free frame to the depot.
    pub fn flush(&mut self) {
        let mut depot = self.umem.depot();
        depot.small.extend_from_slice(&self.stack[..self.top]);
        depot.jumbo.append(&mut self.jumbo);
        self.top = 0;
    }

    /// Bytes of the pool.
    ///
    /// # Safety
    /// `offset..offset + len` lies in the pool, in a chunk that the caller owns and borrows for as long.
    #[inline]
    pub(super) unsafe fn slice(&self, offset: u32, len: u32) -> &[u8] {
        // SAFETY: in the pool, which stays mapped while `self.umem` lives; nobody writes it through Rust
        // meanwhile, since the owner of the chunk is borrowed.
        unsafe { std::slice::from_raw_parts(self.umem.base().as_ptr().add(offset as usize), len as usize) }
    }

    /// Takes a bundle from the depot; gives how many frames the cache then holds.
    #[cold]
    fn refill(&mut self) -> usize {
        self.limit = self.umem.share_of_a_cache().clamp(1, CACHE_MAX);
        let mut depot = self.umem.depot();
        // Half of the limit, as `spill` gives half away: so the next bundle is as far off either way.
        let want = BUNDLE.min(self.limit.div_ceil(2)).min(CACHE_MAX - self.top);
        let rest = depot.small.len() - want.min(depot.small.len());
        // Kept in order: what was on top of the depot is on top of the stack.
        for offset in depot.small.drain(rest..) {
            self.stack[self.top] = offset;
            self.top += 1;
        }
        self.top
    }

    /// Gives the bundle that was longest unused to the depot.
    #[cold]
    fn spill(&mut self) {
        self.limit = self.umem.share_of_a_cache().clamp(1, CACHE_MAX);
        let count = self.top.div_ceil(2).max(self.top.saturating_sub(self.limit / 2));
        self.umem.depot().small.extend_from_slice(&self.stack[..count]);
        self.stack.copy_within(count..self.top, 0);
        self.top -= count;
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.umem.cache_gone();
        self.flush();
    }
}
