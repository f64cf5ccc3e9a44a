//! A copy of every frame that a queue receives or sends, to a pcapng file, over any device.
//!
//! The loop copies into a buffer of fixed size and never waits: what finds the buffer full is not captured, and
//! counted. A thread of its own writes the file, and sleeps while there is nothing to write.

use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bifurcate_linux::{Error, Result};

use crate::device::observed::{Observer, observe};
use crate::device::{Counters, QueuePair};
use crate::frame::Batch;

mod pcapng;
mod writer;

use pcapng::Direction;
use writer::{Mailbox, Writer};

/// Bytes of frames that may lie in each of the two compartments of a mailbox on their way to the writer; a mailbox is there
/// for each direction of each queue.
pub const BUFFER: usize = 4 << 20;

/// An open capture file. [`Tap::wrap`] puts queues in front of it; [`Tap::finish`] closes it.
pub struct Tap {
    writer: Writer,
}

/// What a capture came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Frames in the file.
    pub written: u64,
    /// Frames that were not captured because the file could not keep up, or failed.
    pub missed: u64,
}

impl Tap {
    /// Starts a capture into `out`, in which the interface is named `interface`. The file's head is written at
    /// once, so that a full disk is found here.
    ///
    /// # Errors
    /// What writing reports, or making a thread.
    pub fn new(out: Box<dyn Write + Send>, interface: &str) -> Result<Tap> {
        let mut out = out;
        out.write_all(&pcapng::head(interface))
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("write", "the head of a pcapng file", &e))?;
        let writer = Writer::start(out).map_err(|e| Error::io("clone", "thread bf-tap", &e))?;
        Ok(Tap { writer })
    }

    /// Puts the tap over a queue: both directions are captured, up to `snaplen` bytes of each frame.
    #[must_use]
    pub fn wrap(&self, pair: QueuePair, snaplen: u32) -> QueuePair {
        let copier = |direction| Copier {
            mailbox: self.writer.mailbox(BUFFER),
            direction,
            snaplen: snaplen as usize,
        };
        observe(pair, copier(Direction::Inbound), copier(Direction::Outbound))
    }

    /// Writes what is left and closes the file; gives what the capture came to.
    ///
    /// # Errors
    /// The first failure to write. Frames that came after it count as missed.
    pub fn finish(self) -> Result<Captured> {
        self.writer.finish()
    }
}

/// The loop's side: formats frames into its own mailbox.
struct Copier {
    mailbox: Arc<Mailbox>,
    direction: Direction,
    snaplen: usize,
}

impl Copier {
    /// `frames` calls its argument with each frame. One lock and one look at the clock a batch. What is not captured
    /// is counted.
    fn copy(&self, count: usize, counters: &Counters, frames: impl FnOnce(&mut dyn FnMut(&[u8]))) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let (direction, snaplen) = (self.direction, self.snaplen);
        let missed = self.mailbox.post(count, |post| {
            frames(&mut |bytes| {
                let length = pcapng::packet_length(bytes, snaplen);
                post.add(length, |buffer| {
                    pcapng::packet(buffer, nanoseconds, direction, bytes, snaplen)
                });
            });
        });
        counters.tap_lost.add(missed);
    }
}

impl Observer for Copier {
    fn received(&self, batch: &Batch, first: usize, counters: &Counters) {
        self.copy(batch.len() - first, counters, |add| {
            for at in first..batch.len() {
                add(batch.bytes(at));
            }
        });
    }

    fn sending(&self, batch: &Batch, counters: &Counters) {
        let mut count = 0;
        batch.each_send(|_| count += 1);
        if count > 0 {
            self.copy(count, counters, |add| batch.each_send(add));
        }
    }
}
