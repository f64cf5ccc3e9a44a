//! Up to 256 frames that travel together, each with its verdict: owned by one thread, reused for ever.

use std::sync::Arc;

use super::{Cache, Frame, Umem};

mod leave;

/// Most frames in a batch.
pub const BATCH_MAX: usize = 256;

/// Frames a queue is asked for at a time unless told otherwise.
pub const BATCH_DEFAULT: usize = 32;

/// How many frames before its turn a frame's first bytes are asked for: some of those are on their way side by side.
const AHEAD: usize = 12;

/// What becomes of a frame.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Back to the pool. The default.
    #[default]
    Drop = 0,
    /// Out of a port.
    Send = 1,
    /// Into the kernel, as if it had just arrived on its interface.
    Pass = 2,
    /// Owned by the handler until it says otherwise.
    Keep = 3,
}

/// What the device says of a received frame beyond its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The RSS hash; `None` when the device does not give it.
    pub hash: Option<u32>,
    /// Nanoseconds of the device's or the kernel's clock.
    pub timestamp: Option<u64>,
    /// The VLAN tag (TCI) that the device stripped.
    pub vlan: Option<u16>,
}

/// A frame that has left the batch. No verdict with a port looks like it: verdicts are at most 3.
const TAKEN: u16 = u16::MAX;

/// Frames of one pool, with their verdicts.
#[derive(Debug)]
pub struct Batch {
    cache: Cache,
    /// Offset and length of each frame. Invariant: entries below `count` whose mark is not TAKEN lie in one
    /// chunk of the cache's pool each, and this batch owns that chunk.
    offsets: Box<[u32; BATCH_MAX]>,
    lens: Box<[u32; BATCH_MAX]>,
    /// Verdict in the low byte, number of the port in the high one; or TAKEN.
    marks: Box<[u16; BATCH_MAX]>,
    /// Of the entries below `count`, when there is any.
    metadata: Box<[Metadata; BATCH_MAX]>,
    has_metadata: bool,
    /// Entries in use.
    count: usize,
    /// Entries not taken.
    left: usize,
    /// The mark that `next_send` looks for, and where it goes on looking.
    wanted: u16,
    cursor: usize,
    limit: usize,
}

impl Batch {
    /// An empty batch with a cache of its own, asking for `limit` frames at a time (1 to [`BATCH_MAX`], what
    /// lies outside is brought inside).
    #[must_use]
    pub fn new(umem: &Arc<Umem>, limit: usize) -> Batch {
        Batch {
            cache: Cache::new(umem),
            offsets: Box::new([0; BATCH_MAX]),
            lens: Box::new([0; BATCH_MAX]),
            marks: Box::new([TAKEN; BATCH_MAX]),
            metadata: Box::new([Metadata::default(); BATCH_MAX]),
            has_metadata: false,
            count: 0,
            left: 0,
            wanted: mark(Verdict::Send, 0),
            cursor: 0,
            limit: limit.clamp(1, BATCH_MAX),
        }
    }

    /// The thread's free frames.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The thread's free frames, to take from and give to.
    pub fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Most frames that a device puts in.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Frames that were put in, taken ones included.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none was put in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Frames that a device may still put in.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.count)
    }

    /// Puts a received frame in, its verdict `Drop`.
    ///
    /// # Errors
    /// Gives the frame back when the batch is full or of another pool.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.pool != self.cache.id || self.count >= BATCH_MAX {
            return Err(frame);
        }
        if self.has_metadata {
            self.metadata[self.count] = Metadata::default();
        }
        self.put(frame.offset, frame.len, mark(Verdict::Drop, 0));
        Ok(())
    }

    /// Puts a received frame in, with what the device said of it.
    ///
    /// # Errors
    /// As [`Batch::push`].
    #[inline]
    pub fn push_with(&mut self, frame: Frame, metadata: Metadata) -> Result<(), Frame> {
        let at = self.count;
        self.push(frame)?;
        if !self.has_metadata {
            self.metadata[..at].fill(Metadata::default());
            self.has_metadata = true;
        }
        self.metadata[at] = metadata;
        Ok(())
    }

    /// Puts a frame in that is to be sent out of the port numbered `port`.
    ///
    /// # Errors
    /// As [`Batch::push`].
    #[inline]
    pub fn push_send(&mut self, frame: Frame, port: u8) -> Result<(), Frame> {
        let at = self.count;
        self.push(frame)?;
        self.marks[at] = mark(Verdict::Send, port);
        Ok(())
    }

    /// The bytes of frame `index`; none when there is no such frame, or it has left.
    #[inline]
    #[must_use]
    pub fn bytes(&self, index: usize) -> &[u8] {
        if index >= self.count || self.marks[index] == TAKEN {
            return &[];
        }
        // SAFETY: the invariant of `offsets`: below `count` and not TAKEN, so the range lies in one chunk of the
        // cache's pool that this batch owns; the batch is borrowed.
        unsafe { self.cache.slice(self.offsets[index], self.lens[index]) }
    }

    /// The bytes of frame `index`, to be changed; none when there is no such frame, or it has left.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        if index >= self.count || self.marks[index] == TAKEN {
            return &mut [];
        }
        let (offset, len) = (self.offsets[index], self.lens[index]);
        // SAFETY: the invariant of `offsets`: not TAKEN and below `count`, so the range lies in one chunk of
        // the pool, mapped while the cache holds its Umem; this batch owns the chunk and is borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.cache.umem().base().as_ptr().add(offset as usize),
                len as usize,
            )
        }
    }

    /// Where frame `index` begins in the pool, in bytes; 0 when there is no such frame.
    #[inline]
    #[must_use]
    pub fn offset(&self, index: usize) -> u32 {
        if index < self.count {
            self.offsets[index]
        } else {
            0
        }
    }

    /// Bytes of frame `index`; 0 when there is no such frame.
    #[inline]
    #[must_use]
    pub fn size(&self, index: usize) -> u32 {
        if index < self.count { self.lens[index] } else { 0 }
    }

    /// What the device said of frame `index`.
    #[must_use]
    pub fn metadata(&self, index: usize) -> Metadata {
        if self.has_metadata && index < self.count {
            self.metadata[index]
        } else {
            Metadata::default()
        }
    }

    /// Whether the device said anything of any frame of this batch.
    #[must_use]
    #[inline]
    pub fn has_metadata(&self) -> bool {
        self.has_metadata
    }

    /// Sets the length of frame `index`. False, and nothing changed, when its chunk has no room for that or
    /// there is no such frame.
    pub fn set_len(&mut self, index: usize, len: usize) -> bool {
        if index >= self.count || self.marks[index] == TAKEN {
            return false;
        }
        let offset = self.offsets[index];
        let fits = len <= (self.cache.umem().chunk_end(offset) - offset) as usize;
        if fits {
            self.lens[index] = len as u32;
        }
        fits
    }

    /// Ends frame `index` with `verdict` (`Send`: out of port 0). A frame that is not there is let be.
    #[inline]
    pub fn set(&mut self, index: usize, verdict: Verdict) {
        self.set_mark(index, mark(verdict, 0));
    }

    /// Ends frame `index` with `Send` out of the port numbered `port`.
    #[inline]
    pub fn send(&mut self, index: usize, port: u8) {
        self.set_mark(index, mark(Verdict::Send, port));
    }

    /// Ends every frame with `Send` out of the port numbered `port`.
    #[inline]
    pub fn send_all(&mut self, port: u8) {
        self.end_all(Verdict::Send, port);
    }

    /// Ends every frame with `verdict`; `port` is that of `Send`, and 0 with any other.
    #[inline]
    pub fn end_all(&mut self, verdict: Verdict, port: u8) {
        let new = mark(verdict, port);
        for m in &mut self.marks[..self.count] {
            *m = if *m == TAKEN { TAKEN } else { new };
        }
    }

    /// Ends every frame with what `judge` says of it, given its place in the batch and its length: verdict,
    /// length and port. One of which it says nothing, or a length that its chunk has no room for, is dropped;
    /// gives how many those were.
    #[inline]
    pub fn judge(&mut self, mut judge: impl FnMut(usize, u32) -> Option<(Verdict, u32, u8)>) -> usize {
        let mut invalid = 0;
        let umem = self.cache.umem();
        let count = self.count;
        let (offsets, lens) = (&self.offsets[..count], &mut self.lens[..count]);
        let frames = self.marks[..count].iter_mut().zip(offsets).zip(lens);
        for (at, ((m, &offset), len)) in frames.enumerate() {
            if *m == TAKEN {
                continue;
            }
            *m = match judge(at, *len) {
                Some((verdict, new, port)) if new == *len || new <= umem.chunk_end(offset) - offset => {
                    *len = new;
                    mark(verdict, port)
                }
                _ => {
                    invalid += 1;
                    mark(Verdict::Drop, 0)
                }
            };
        }
        invalid
    }

    /// Offset in the pool and length of every frame, in order, those that have left included.
    #[inline]
    pub fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let (offsets, lens) = (&self.offsets[..self.count], &self.lens[..self.count]);
        offsets.iter().copied().zip(lens.iter().copied())
    }

    /// Whether frame `index` is there and to be sent out of the port numbered `port`.
    #[must_use]
    #[inline]
    pub fn sends_to(&self, index: usize, port: u8) -> bool {
        index < self.count && self.marks[index] == mark(Verdict::Send, port)
    }

    /// The verdict of frame `index`; `None` when it is not there any more.
    #[must_use]
    pub fn verdict(&self, index: usize) -> Option<Verdict> {
        if index >= self.count {
            return None;
        }
        match self.marks[index] {
            TAKEN => None,
            m => Some(match m as u8 {
                1 => Verdict::Send,
                2 => Verdict::Pass,
                3 => Verdict::Keep,
                _ => Verdict::Drop,
            }),
        }
    }

    /// Puts up to `count` free frames in, each of `len` bytes with whatever its chunk holds; gives how many.
    ///
    /// Less than `count` when the batch is full or the pool empty, none when `len` does not fit a frame.
    #[inline]
    pub fn fill_free(&mut self, count: usize, len: u32) -> usize {
        let count = count.min(BATCH_MAX - self.count);
        let range = self.count..self.count + count;
        let got = self.cache.take_offsets(&mut self.offsets[range.clone()], len);
        let range = range.start..range.start + got;
        self.lens[range.clone()].fill(len);
        self.marks[range.clone()].fill(mark(Verdict::Drop, 0));
        if self.has_metadata {
            self.metadata[range].fill(Metadata::default());
        }
        self.count += got;
        self.left += got;
        got
    }

    /// Asks the CPU to fetch the first bytes of every frame, for a handler that is about to look at all of them and
    /// mostly to change them too: a line of another core's cache then comes in one step, and not once to be read and once
    /// more to be written.
    #[inline]
    pub fn prefetch(&self) {
        for &offset in &self.offsets[..self.count] {
            self.cache.prefetch_write_at(offset);
        }
    }

    /// Calls `visit` with the bytes of every frame and ends the frame with what that gives (`Send`: out of
    /// port 0).
    #[inline]
    pub fn each(&mut self, mut visit: impl FnMut(&mut [u8]) -> Verdict) {
        let base = self.cache.umem().base();
        let count = self.count;
        let (offsets, lens) = (&self.offsets[..count], &self.lens[..count]);
        // As in `prefetch`, a few ahead of their turn.
        for &first in offsets.iter().take(AHEAD) {
            self.cache.prefetch_write_at(first);
        }
        for (at, ((m, &offset), &len)) in self.marks[..count].iter_mut().zip(offsets).zip(lens).enumerate() {
            if let Some(&ahead) = offsets.get(at + AHEAD) {
                self.cache.prefetch_write_at(ahead);
            }
            if *m != TAKEN {
                // SAFETY: as in `bytes_mut`: not TAKEN and below `count`, so the range lies in a chunk of the
                // mapped pool that this batch owns; the slice ends before the next one is made.
                let bytes = unsafe {
                    std::slice::from_raw_parts_mut(base.as_ptr().add(offset as usize), len as usize)
                };
                *m = mark(visit(bytes), 0);
            }
        }
    }

    #[inline]
    fn put(&mut self, offset: u32, len: u32, m: u16) {
        let at = self.count & (BATCH_MAX - 1);
        self.offsets[at] = offset;
        self.lens[at] = len;
        self.marks[at] = m;
        self.count += 1;
        self.left += 1;
    }

    #[inline]
    fn set_mark(&mut self, index: usize, m: u16) {
        if index < self.count && self.marks[index] != TAKEN {
            self.marks[index] = m;
        }
    }
}

/// Verdict and port as one number.
const fn mark(verdict: Verdict, port: u8) -> u16 {
    verdict as u16 | (port as u16) << 8
}
