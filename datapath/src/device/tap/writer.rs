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
    /// The writer takes from one compartment after the other, and never has both: while it empties the first, or was
    /// preempted there, what comes goes into the second.
    compartments: [Mutex<Letters>; 2],
    /// Most bytes that lie in a compartment.
    capacity: usize,
    /// Frames that found it full, or locked.
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
    fn new(capacity: usize, writer: Thread) -> Mailbox {
        let compartment = || {
            Mutex::new(Letters {
                bytes: Vec::with_capacity(capacity),
                frames: 0,
            })
        };
        Mailbox {
            compartments: [compartment(), compartment()],
            capacity,
            missed: AtomicU64::new(0),
            writer,
        }
    }

    /// Opens the mailbox for a batch of `count` frames; never waits. Gives how many frames were not left in it.
    pub(super) fn post(&self, count: usize, fill: impl FnOnce(&mut Post<'_>)) -> u64 {
        // The first once more: the writer may have gone on from there to the second between the two tries.
        let [first, second] = &self.compartments;
        let open = [first, second, first]
            .into_iter()
            .find_map(|it| it.try_lock().ok());
        let Some(letters) = open else {
            self.missed.fetch_add(count as u64, Ordering::Relaxed);
            return count as u64;
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

    /// Takes what lies in a compartment, and leaves `emptied` there, which has room for as much.
    fn take(&self, compartment: &Mutex<Letters>, emptied: &mut Letters) {
        emptied.bytes.clear();
        emptied.bytes.reserve(self.capacity);
        emptied.frames = 0;
        let mut letters = compartment.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *letters, emptied);
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
        let mailbox = Arc::new(Mailbox::new(capacity, writer));
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
    // Swapped with a compartment's, so that a loop finds it locked for no longer than that takes.
    let mut spare = Letters::default();
    loop {
        // Read before the last look, so that nothing posted before `finish` stays behind.
        let last = shared.finish.load(Ordering::Acquire);
        let mailboxes = shared.mailboxes().clone();
        let mut any = false;
        let all = mailboxes
            .iter()
            .flat_map(|mailbox| mailbox.compartments.iter().map(move |it| (mailbox, it)));
        for (mailbox, compartment) in all {
            mailbox.take(compartment, &mut spare);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_the_writer_takes_from_one_compartment_goes_into_the_other() {
        let mailbox = Mailbox::new(1000, std::thread::current());
        let post = || mailbox.post(1, |post| post.add(4, |bytes| bytes.extend([7; 4])));
        for taken in &mailbox.compartments {
            let _taken = taken.lock().unwrap();
            assert_eq!(post(), 0);
        }
        let mut emptied = Letters::default();
        for compartment in &mailbox.compartments {
            mailbox.take(compartment, &mut emptied);
            assert_eq!((emptied.frames, emptied.bytes.len()), (1, 4));
        }
        let _both = mailbox.compartments.each_ref().map(|it| it.lock().unwrap());
        assert_eq!((post(), mailbox.missed.load(Ordering::Relaxed)), (1, 1));
    }
}
