//! The poll loop turned inside out: the handler is elsewhere (JavaScript), sees a shared block of numbers, and
//! calls [`RemoteQueue::turn`] for the next batch. Nothing it writes is trusted.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::device::{Counters, RxQueue, State};
use crate::filter::Program;
use crate::frame::{BATCH_MAX, Batch, Frame, Umem, Verdict};

use super::exits::Exits;
use super::{Out, PassPath};

mod block;
mod kept;
#[cfg(test)]
mod tests;

use block::Row;
pub use block::{BLOCK_WORDS, Block, HEADER_WORDS, RELEASE_WORD, ROW_WORDS};
use kept::Kept;

/// Bytes of the shortest frame that is sent or passed: an Ethernet header (IEEE 802.3).
pub const SHORTEST: u32 = 14;

/// One queue whose handler is elsewhere. Belongs to one thread at a time.
pub struct RemoteQueue {
    rx: Box<dyn RxQueue>,
    batch: Batch,
    block: Block,
    kept: Kept,
    filter: Option<Program>,
    exits: Exits,
    /// Whether the rows hold metadata of an earlier batch.
    metadata_written: bool,
}

impl RemoteQueue {
    /// A queue that receives up to `burst` frames of `umem` a turn and may send to `outs`, of which a verdict
    /// reaches the first 256.
    #[must_use]
    pub fn new(rx: Box<dyn RxQueue>, umem: &Arc<Umem>, burst: usize, outs: Vec<Out>) -> RemoteQueue {
        let exits = Exits::new(outs, rx.left_to_card());
        RemoteQueue {
            rx,
            batch: Batch::new(umem, burst),
            block: Block::new(umem.frame_size()),
            kept: Kept::new(umem),
            filter: None,
            exits,
            metadata_written: false,
        }
    }

    /// Shows the handler only what `program` wants; everything else is passed to the kernel.
    #[must_use]
    pub fn with_filter(mut self, program: Program) -> RemoteQueue {
        self.filter = Some(program);
        self
    }

    /// Gives passed frames a way into the kernel; without one they are dropped.
    #[must_use]
    pub fn with_pass(mut self, path: Box<dyn PassPath>) -> RemoteQueue {
        self.exits.pass = Some(path);
        self
    }

    /// The shared block.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The pool that the offsets in the block refer to.
    #[must_use]
    pub fn umem(&self) -> &Arc<Umem> {
        self.batch.cache().umem()
    }

    /// Does what the block says of the last batch and of kept frames, receives the next batch and writes its
    /// rows; gives how many.
    #[inline]
    pub fn turn(&mut self) -> usize {
        self.end_batch();
        self.exits.send_for_kernel(&mut self.batch);
        if self.rx.poll(&mut self.batch) == 0 {
            self.exits.idle(&mut self.batch);
            self.block.set_count(0);
            return 0;
        }
        if let Some(program) = &self.filter {
            self.exits.sieve(program, &mut self.batch);
        }
        let rows = self.batch.len();
        self.batch.prefetch();
        self.block.write_rows(self.batch.places());
        self.write_metadata(rows);
        self.block.set_count(rows);
        rows
    }

    /// Does what the block says, and receives nothing: for a handler that stops.
    pub fn end_batch(&mut self) {
        if !self.batch.is_empty() {
            self.apply_rows();
            self.exits.settle(&mut self.batch);
        }
        // Word 1 says whether there is anything; a handler that keeps nothing never writes it.
        if self.block.releases() != 0 {
            self.apply_releases();
            self.exits.settle(&mut self.batch);
        }
    }

    /// Frames that the handler keeps.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// What becomes readable when a turn may find frames; `None`: always turn again.
    #[must_use]
    pub fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.rx.ready_fd()
    }

    /// Says that the calling loop is about to wait; false when frames have arrived meanwhile: turn again instead.
    pub fn prepare_to_wait(&mut self) -> bool {
        self.rx.prepare_to_wait()
    }

    /// Whether something goes on that [`RemoteQueue::ready_fd`] does not tell of: the next turn should come soon, frames
    /// or not.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.rx.is_starving() || self.exits.is_waiting()
    }

    /// Whether the device is there, as the last turn found it.
    #[must_use]
    pub fn state(&self) -> State {
        self.rx.state()
    }

    /// What the loop itself has counted: dropped, passed, handler_invalid, and copies that found no frame.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.exits.counters
    }

    /// Drops what the handler had, kept frames included, and takes the queue apart: the receive queue and the
    /// outs.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn RxQueue>, Vec<Out>) {
        self.exits.counters.dropped.add(self.kept.len() as u64);
        self.exits.counters.kept.set(0);
        (self.rx, self.exits.outs)
    }

    fn apply_rows(&mut self) {
        let outs = self.exits.outs.len();
        let known_ports = outs.min(usize::from(u8::MAX) + 1) as u32;
        if let Some(row) = self
            .block
            .same(self.batch.places().map(|(_, size)| size), SHORTEST)
        {
            if row.verdict == Verdict::Send as i32 && (row.port as u32) < known_ports {
                return self.batch.end_all(Verdict::Send, row.port as u8);
            }
            if row.verdict == Verdict::Drop as i32 {
                return self.batch.end_all(Verdict::Drop, 0);
            }
        }
        let (block, kept) = (&self.block, &mut self.kept);
        let invalid = self.batch.judge(|at, size| {
            let row = block.row(at);
            // What a batch begins with, and most handlers leave for most frames.
            if row.verdict == Verdict::Drop as i32 {
                return Some((Verdict::Drop, size, 0));
            }
            // The most frequent other one, in one comparison each: sent as long as it came.
            let known = row.verdict == Verdict::Send as i32 && (row.port as u32) < known_ports;
            if known && row.len == size as i32 && size >= SHORTEST {
                return Some((Verdict::Send, size, row.port as u8));
            }
            checked(&row, outs)
        });
        self.exits.counters.handler_invalid.add(invalid as u64);
        if self.batch.count_of(Verdict::Keep) > 0 {
            for at in 0..self.batch.len() {
                if self.batch.verdict(at) == Some(Verdict::Keep)
                    && let Some(frame) = self.batch.take(at)
                {
                    kept.put(frame, self.batch.cache_mut());
                }
            }
            self.count_kept();
        }
    }

    fn count_kept(&self) {
        self.exits.counters.kept.set(self.kept.len() as u64);
    }

    fn apply_releases(&mut self) {
        let outs = self.exits.outs.len();
        let asked = self.block.releases();
        let rows = usize::try_from(asked).ok().filter(|&n| n <= BATCH_MAX);
        let mut invalid = u64::from(rows.is_none());
        for at in 0..rows.unwrap_or(0) {
            let row = self.block.release(at);
            let Some(frame) = self.kept.take(row.offset) else {
                invalid += 1;
                continue;
            };
            invalid += u64::from(!self.release(frame, &row, outs));
        }
        self.block.clear_releases();
        self.exits.counters.handler_invalid.add(invalid);
        self.count_kept();
    }

    /// Puts a frame that was kept into the empty batch, with its verdict. False when the row is wrong: the
    /// frame is then dropped, for the handler has given it up.
    fn release(&mut self, mut frame: Frame, row: &Row, outs: usize) -> bool {
        let verdict = match row.verdict {
            0 => Some((Verdict::Drop, frame.len(), 0)),
            3 => None,
            _ => checked(row, outs),
        };
        let verdict = verdict.filter(|&(_, len, _)| self.batch.cache().set_len(&mut frame, len as usize));
        let at = self.batch.len();
        if let Err(frame) = self.batch.push(frame) {
            // At most BATCH_MAX releases a turn, into an empty batch: there is room. Were there none, drop.
            self.batch.cache_mut().give(frame);
            return false;
        }
        match verdict {
            Some((Verdict::Send, _, port)) => self.batch.send(at, port),
            Some((verdict, _, _)) => self.batch.set(at, verdict),
            None => return false,
        }
        true
    }

    fn write_metadata(&mut self, rows: usize) {
        if self.batch.has_metadata() {
            for row in 0..rows {
                self.block.write_metadata(row, self.batch.metadata(row));
            }
            self.metadata_written = true;
        } else if self.metadata_written {
            for row in 0..BATCH_MAX {
                self.block.clear_metadata(row);
            }
            self.metadata_written = false;
        }
    }
}

/// Verdict, length and port of a row that says something else than drop; `None` when one of them cannot be.
#[inline]
fn checked(row: &Row, outs: usize) -> Option<(Verdict, u32, u8)> {
    let len = u32::try_from(row.len).ok().filter(|&len| len >= SHORTEST)?;
    match row.verdict {
        1 => {
            let port = u8::try_from(row.port)
                .ok()
                .filter(|&port| usize::from(port) < outs)?;
            Some((Verdict::Send, len, port))
        }
        2 => Some((Verdict::Pass, len, 0)),
        3 => Some((Verdict::Keep, len, 0)),
        _ => None,
    }
}
