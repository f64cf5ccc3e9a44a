//! The thread that writes a capture file, and the mailboxes that loops leave frames in.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{SystemTime, UNIX_EPOCH};

use bifurcate_linux::{Error, Result};

use super::{Captured, pcapng};

/// What one queue half leaves for the writer.
pub(super) struct Mailbox {
    inner: Mutex<Letters>,
    /// Most bytes that lie in it.
    capacity: usize,
    /// Frames that found it full or locked.
    missed: AtomicU64,
    writer: Thread,
}

#[derive(Default)]
struct Letters {
    bytes: Vec<u8>,
    frames: u64,
}

/// A mailbox opened for one batch.
pub(super) struct Post<'a> {
    letters: MutexGuard<'a, Letters>,
    capacity: usize,
    missed: u64,
}

impl Post<'_> {
    /// Leaves a record of `length` bytes that `write` appends, when there is room for it.
    pub(super) fn add(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.letters.bytes.len() + length > self.capacity {
            self.missed += 1;
            return;
        }
        write(&mut self.letters.bytes);
        self.letters.frames += 1;
    }
}

impl Mailbox {
    /// Opens the mailbox for a batch of `count` frames, if the writer does not have it; never waits. Gives how many
    /// frames were not left in it.
    pub(super) fn post(&self, count: usize, fill: impl FnOnce(&mut Post<'_>)) -> u64 {
        let letters = match self.inner.try_lock() {
            Ok(letters) => letters,
            Err(_) => {
                self.missed.fetch_add(count as u64, Ordering::Relaxed);
                return count as u64;
            }
        };
        let was_empty = letters.bytes.is_empty();
        let mut post = Post {
            letters,
            capacity: self.capacity,
            missed: 0,
        };
        fill(&mut post);
        let missed = post.missed;
        drop(post);
        if missed > 0 {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
        if was_empty {
            self.writer.unpark();
        }
        missed
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
    finish: AtomicBool,
}

/// The thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Captured>>>,
}

impl Writer {
    pub(super) fn start(out: Box<dyn Write + Send>) -> std::io::Result<Writer> {
        let shared = Arc::new(Shared {
            mailboxes: Mutex::default(),
            finish: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bf-tap".into())
            .spawn(move || write_all(&theirs, out))?;
        Ok(Writer {
            shared,
            thread: Some(thread),
        })
    }

    /// A mailbox for `capacity` bytes, reserved now.
    pub(super) fn mailbox(&self, capacity: usize) -> Arc<Mailbox> {
        let writer = self
            .thread
            .as_ref()
            .map_or_else(std::thread::current, |t| t.thread().clone());
        let mailbox = Arc::new(Mailbox {
            inner: Mutex::new(Letters {
                bytes: Vec::with_capacity(capacity),
                frames: 0,
            }),
            capacity,
            missed: AtomicU64::new(0),
            writer,
        });
        self.shared.mailboxes().push(Arc::clone(&mailbox));
        mailbox
    }

    pub(super) fn finish(mut self) -> Result<Captured> {
        self.end()
    }

    fn end(&mut self) -> Result<Captured> {
        let Some(thread) = self.thread.take() else {
            return Ok(Captured::default());
        };
        self.shared.finish.store(true, Ordering::Release);
        thread.thread().unpark();
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::new("write", "the capture's thread panicked", 125)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Shared {
    fn mailboxes(&self) -> MutexGuard<'_, Vec<Arc<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Empties the mailboxes into `out` until told to finish. After a failure to write, frames are taken away and
/// counted as missed, so that the loops go on as before.
fn write_all(shared: &Shared, mut out: Box<dyn Write + Send>) -> Result<Captured> {
    let mut captured = Captured::default();
    let mut failure = None;
    // Swapped with a mailbox's, so that a loop finds its mailbox locked for no longer than that takes.
    let mut spare = Letters::default();
    loop {
        // Read before the last look, so that nothing posted before `finish` stays behind.
        let last = shared.finish.load(Ordering::Acquire);
        let mailboxes = shared.mailboxes().clone();
        let mut any = false;
        for mailbox in &mailboxes {
            spare.bytes.clear();
            spare.bytes.reserve(mailbox.capacity);
            spare.frames = 0;
            std::mem::swap(&mut *mailbox.letters(), &mut spare);
            any |= spare.frames > 0;
            if spare.frames > 0 && failure.is_none() {
                failure = out.write_all(&spare.bytes).err();
            }
            if failure.is_none() {
                captured.written += spare.frames;
            } else {
                captured.missed += spare.frames;
            }
        }
        if last {
            captured.missed += mailboxes
                .iter()
                .map(|m| m.missed.load(Ordering::Relaxed))
                .sum::<u64>();
            break;
        }
        if !any {
            // What was written can be read while the capture goes on.
            if failure.is_none() {
                failure = out.flush().err();
            }
            std::thread::park();
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let statistics = pcapng::statistics(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), captured.missed);
    let end = failure.map_or_else(|| out.write_all(&statistics).and_then(|()| out.flush()), Err);
    match end {
        Ok(()) => Ok(captured),
        Err(e) => Err(Error::io(
            "write",
            format!("pcapng file after {} frames", captured.written),
            &e,
        )),
    }
}
