//! How frames leave a batch: sent, taken out, sieved, or all back to the pool.

use super::{BATCH_MAX, Batch, TAKEN, Verdict, mark};
use crate::frame::Frame;

impl Batch {
    /// From now on [`Batch::next_send`] gives the frames to be sent out of the port numbered `port`.
    #[inline]
    pub fn sending_to(&mut self, port: u8) {
        self.wanted = mark(Verdict::Send, port);
        self.cursor = 0;
    }

    /// The next frame to be sent out of the port named by [`Batch::sending_to`] (0 at first).
    #[inline]
    pub fn next_send(&mut self) -> Option<Frame> {
        while self.cursor < self.count {
            let at = self.cursor & (BATCH_MAX - 1);
            self.cursor += 1;
            if self.marks[at] == self.wanted {
                return Some(self.take_at(at));
            }
        }
        None
    }

    /// Whether any frame is to be sent out of the port named by [`Batch::sending_to`].
    #[inline]
    #[must_use]
    pub fn has_sends(&self) -> bool {
        // Without an early exit: several at a time.
        self.marks[..self.count]
            .iter()
            .fold(false, |any, &m| any | (m == self.wanted))
    }

    /// Takes frame `index` out. `None` when it is not there.
    #[inline]
    pub fn take(&mut self, index: usize) -> Option<Frame> {
        (index < self.count && self.marks[index] != TAKEN).then(|| self.take_at(index))
    }

    /// Gives the frames to be sent out of the port named by [`Batch::sending_to`] back to the pool, as a device
    /// does that sends nowhere; gives how many, and their bytes.
    #[inline]
    pub fn discard_sends(&mut self) -> (usize, u64) {
        let count = self.count;
        let (offsets, lens) = (&self.offsets[..count], &self.lens[..count]);
        let marks = &mut self.marks[..count];
        let wanted = self.wanted;
        // The usual case is that all go the same way; seen without an early exit, several at a time.
        if marks.iter().fold(true, |all, &m| all & (m == wanted)) {
            marks.fill(TAKEN);
            self.cache.give_offsets(offsets);
            self.left = 0;
            return (count, lens.iter().map(|&len| u64::from(len)).sum());
        }
        let (mut frames, mut bytes) = (0, 0u64);
        for ((m, &offset), &len) in marks.iter_mut().zip(offsets).zip(lens) {
            if *m == wanted {
                *m = TAKEN;
                frames += 1;
                bytes += u64::from(len);
                self.cache.give_offset(offset);
            }
        }
        self.left -= frames;
        (frames, bytes)
    }

    /// Keeps the frames for which `keep` holds, in their order and with their verdicts, and gives the others
    /// back to the pool; gives how many those were.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut [u8]) -> bool) -> usize {
        let mut to = 0;
        for at in 0..self.count {
            if self.marks[at] == TAKEN {
                continue;
            }
            if keep(self.bytes_mut(at)) {
                if to != at {
                    self.offsets[to] = self.offsets[at];
                    self.lens[to] = self.lens[at];
                    self.marks[to] = std::mem::replace(&mut self.marks[at], TAKEN);
                    self.metadata[to] = self.metadata[at];
                }
                to += 1;
            } else {
                // Marked at once: a panic in a later `keep` leaves no chunk owned twice.
                self.marks[at] = TAKEN;
                self.cache.give_offset(self.offsets[at]);
            }
        }
        let gone = self.left - to;
        (self.count, self.left, self.cursor) = (to, to, 0);
        gone
    }

    /// As [`Batch::retain`] of the frames to be sent out of the port named by [`Batch::sending_to`]; the others
    /// stay as they are.
    pub fn retain_sends(&mut self, mut keep: impl FnMut(&mut [u8]) -> bool) -> usize {
        let mut gone = 0;
        for at in 0..self.count {
            if self.marks[at] == self.wanted && !keep(self.bytes_mut(at)) {
                let frame = self.take_at(at);
                self.cache.give(frame);
                gone += 1;
            }
        }
        gone
    }

    /// Calls `visit` with the bytes of each frame to be sent out of the port named by [`Batch::sending_to`].
    pub fn each_send(&self, mut visit: impl FnMut(&[u8])) {
        for at in 0..self.count {
            if self.marks[at] == self.wanted {
                visit(self.bytes(at));
            }
        }
    }

    /// Number of frames left that have this verdict.
    #[must_use]
    pub fn count_of(&self, verdict: Verdict) -> usize {
        if self.left == 0 {
            return 0;
        }
        let is = |m: &&u16| **m != TAKEN && **m as u8 == verdict as u8;
        self.marks[..self.count].iter().filter(is).count()
    }

    /// Number of frames left that are to be sent out of a port numbered `first` or higher.
    #[must_use]
    pub fn count_sends_from(&self, first: usize) -> usize {
        let is =
            |m: &&u16| **m != TAKEN && **m as u8 == Verdict::Send as u8 && usize::from(**m >> 8) >= first;
        self.marks[..self.count].iter().filter(is).count()
    }

    /// Frames not taken yet.
    #[must_use]
    #[inline]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Gives every frame that is left back to the pool and empties the batch; gives how many those were.
    #[inline]
    pub fn clear(&mut self) -> usize {
        let left = self.left;
        if left > 0 {
            for at in 0..self.count {
                if self.marks[at] != TAKEN {
                    self.cache.give_offset(self.offsets[at]);
                }
            }
        }
        self.count = 0;
        self.left = 0;
        self.cursor = 0;
        self.has_metadata = false;
        left
    }

    #[inline]
    fn take_at(&mut self, at: usize) -> Frame {
        self.marks[at] = TAKEN;
        self.left -= 1;
        Frame {
            offset: self.offsets[at],
            len: self.lens[at],
            pool: self.cache.id,
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.clear();
    }
}
