//! Receiving: completions become frames of the batch, and each slot has a fresh frame soon.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bifurcate_linux::verbs::{Completion, WcStatus};

use super::pair::Side;
use super::queue::{ETHERNET_HEADER, Queue, Receiving};
use crate::device::{Counters, RxQueue, State};
use crate::frame::Batch;

/// How often the card is asked what happened to it.
pub(super) const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Polls that find frames look at the clock once in this many.
const POLLS_PER_CLOCK: u32 = 64;

/// The receiving half of a queue.
pub(super) struct Rx {
    queue: Arc<Queue>,
    starving: bool,
    polls: u32,
    looked: Instant,
}

impl Rx {
    pub(super) fn new(queue: &Arc<Queue>) -> Rx {
        Rx {
            queue: Arc::clone(queue),
            starving: false,
            polls: 0,
            looked: Instant::now(),
        }
    }

    /// Puts what a request came to into the batch; gives how many frames that were.
    fn accept(&self, half: &mut Receiving, done: Completion, batch: &mut Batch) -> u64 {
        let queue = &*self.queue;
        let counters = &queue.received;
        let slot = usize::try_from(done.id).unwrap_or(usize::MAX);
        let Some(mut frame) = half.frames.get_mut(slot).and_then(Option::take) else {
            counters.invalid_descriptor.add(1);
            return 0;
        };
        half.free.push(slot as u32);
        let whole = self.is_frame(done);
        let len = done.len.wrapping_sub(queue.prefix());
        if whole && batch.cache().set_len(&mut frame, len as usize) {
            if let Err(frame) = batch.push(frame) {
                batch.cache_mut().give(frame);
            }
            counters.received_bytes.add(len.into());
            return 1;
        }
        batch.cache_mut().give(frame);
        match done.status {
            WcStatus::Success => counters.invalid_descriptor.add(1),
            // Nothing had arrived in it.
            WcStatus::Flushed => queue.fail("the queue pair is in the error state"),
            WcStatus::LengthError => {
                counters.too_long.add(1);
                queue.fail("a message was longer than a frame");
            }
            WcStatus::Other(_) => {
                counters.device_error.add(1);
                queue.fail(format!("a receive ended with {:?}", done.status));
            }
        }
        0
    }

    /// Whether a frame came, and of a datagram: from the queue pair at the other end.
    #[inline]
    fn is_frame(&self, done: Completion) -> bool {
        let queue = &*self.queue;
        done.status == WcStatus::Success
            && done.len >= queue.prefix() + ETHERNET_HEADER
            && (!queue.shape.datagrams || done.from == queue.from.load(Ordering::Relaxed) && done.from != 0)
    }

    /// The next completion.
    #[inline]
    fn next(&self, half: &mut Receiving) -> Option<Completion> {
        if half.taken.is_empty() {
            match self.queue.pair().poll(Side::Receive, &mut half.taken) {
                Ok(_) => {}
                Err(error) => self.queue.status.gone(error.to_string()),
            }
        }
        half.taken.next()
    }

    /// Hears what happened to the card, now and then: a poll that found frames does not even look at the clock mostly.
    fn look(&mut self, found: bool) {
        self.polls = self.polls.wrapping_add(1);
        let busy = found && !self.polls.is_multiple_of(POLLS_PER_CLOCK);
        if busy || self.looked.elapsed() < HOUSEKEEPING {
            return;
        }
        self.looked = Instant::now();
        self.queue.hear();
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let queue = Arc::clone(&self.queue);
        if queue.status.state() == State::Gone {
            return 0;
        }
        let mut half = queue.rx();
        let (room, mut got) = (batch.room() as u64, 0);
        let mut found = false;
        while got < room {
            let Some(done) = self.next(&mut half) else { break };
            found = true;
            got += self.accept(&mut half, done, batch);
        }
        if queue.has_failed() {
            // What has arrived comes first.
            let over = half.taken.is_empty();
            drop(half);
            if over {
                queue.restart(batch.cache_mut());
            }
        } else {
            let filled = queue.refill(&mut half, batch.cache_mut(), self.starving);
            if !filled {
                queue.received.no_frames.add(1);
            }
            self.starving = !filled;
        }
        self.look(found);
        queue.received.received.add(got);
        got as usize
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.pair().fd()
    }

    fn prepare_to_wait(&mut self) -> bool {
        let queue = &*self.queue;
        if queue.has_failed() || queue.status.state() == State::Gone {
            return true;
        }
        let mut half = queue.rx();
        if half.armed && queue.pair().take_event() {
            half.armed = false;
        }
        if !half.armed {
            if let Err(error) = queue.pair().arm() {
                queue.status.gone(error.to_string());
                return false;
            }
            half.armed = true;
        }
        // A completion that came before the queue was armed raises no event: kept for the next poll.
        if half.taken.is_empty() {
            let polled = queue.pair().poll(Side::Receive, &mut half.taken);
            if let Err(error) = polled {
                queue.status.gone(error.to_string());
            }
        }
        half.taken.is_empty()
    }

    fn state(&self) -> State {
        self.queue.status.state()
    }

    fn is_starving(&self) -> bool {
        self.starving || self.queue.has_failed()
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.queue.received
    }
}
