//! What the two halves of a queue share: its queue pair, the frames that the card has, and how it is set up again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bifurcate_linux::verbs::{Completion, Completions, Receives, Sends, WORK_MAX, WcStatus};

use super::pair::{Pair, Peer, Side};
use super::status::Status;
use crate::device::{Counters, Mtu};
use crate::frame::{Cache, Frame, HEADROOM, Umem};

/// Bytes of the global route header in front of each datagram received (InfiniBand Architecture Specification 1.4,
/// section 11.4.1.2; `struct ibv_grh`).
pub(super) const ROUTE_HEADER: u32 = 40;

/// Bytes of an Ethernet header: the shortest frame.
pub(super) const ETHERNET_HEADER: u32 = 14;

/// Slots without a frame that are filled at once, so that requests are posted many at a time.
const REFILL: usize = 32;

/// A queue pair that fails again and again is set up no more often than this.
const PATIENCE: Duration = Duration::from_millis(10);

/// The receiving side. Locked once a batch by the thread that polls, and when the queue pair is set up again.
pub(super) struct Receiving {
    pub(super) frames: Vec<Option<Frame>>,
    pub(super) free: Vec<u32>,
    pub(super) taken: Completions,
    list: Receives,
    /// The next completion raises an event, or has raised one that was not taken.
    pub(super) armed: bool,
}

/// The sending side. Locked once a batch by the thread that sends, when the queue pair is set up again, and when the
/// other end comes or goes.
pub(super) struct Sending {
    pub(super) frames: Vec<Option<Frame>>,
    /// The number of the next request; those from `clean` on are under way.
    pub(super) next: u32,
    pub(super) clean: u32,
    pub(super) list: Sends,
    taken: Completions,
    pub(super) peer: Option<Peer>,
    /// The way to whom was there before: requests under way may name it.
    before: Option<Peer>,
}

impl Sending {
    pub(super) fn under_way(&self) -> u32 {
        self.next.wrapping_sub(self.clean)
    }

    pub(super) fn mask(&self) -> u32 {
        self.frames.len() as u32 - 1
    }

    fn slot(&mut self, number: u32) -> &mut Option<Frame> {
        let at = (number & self.mask()) as usize;
        &mut self.frames[at]
    }

    /// A request of that number has the frame.
    pub(super) fn put(&mut self, number: u32, frame: Frame) {
        *self.slot(number) = Some(frame);
    }

    /// Takes back the last request, which the card did not take.
    pub(super) fn take_back(&mut self) -> Option<Frame> {
        self.next = self.next.wrapping_sub(1);
        let number = self.next;
        self.slot(number).take()
    }
}

/// What a queue is like, for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Requests that each side holds, a power of two.
    pub(super) ring_size: u32,
    /// It carries datagrams: each is between two queue pairs that know each other.
    pub(super) datagrams: bool,
    /// The key of the pool for the card.
    pub(super) lkey: u32,
}

/// A queue.
pub(super) struct Queue {
    pair: Box<dyn Pair>,
    pub(super) shape: Shape,
    rx: Mutex<Receiving>,
    tx: Mutex<Sending>,
    /// A request failed: the queue pair has to be set up again.
    failed: AtomicBool,
    restarted: Mutex<Option<Instant>>,
    /// The queue pair that datagrams come from; 0 while nobody is at the other end.
    pub(super) from: AtomicU32,
    /// Largest packet without its Ethernet header.
    pub(super) mtu: Mtu,
    pub(super) received: Arc<Counters>,
    pub(super) sent: Arc<Counters>,
    pub(super) status: Arc<Status>,
    pub(super) umem: Arc<Umem>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Under these locks frames are moved from place to place, each by one assignment: whoever panicked left none in two.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Over a queue pair that is in RESET.
    pub(super) fn new(
        pair: Box<dyn Pair>,
        shape: Shape,
        mtu: Mtu,
        status: &Arc<Status>,
        umem: &Arc<Umem>,
    ) -> Queue {
        let size = shape.ring_size as usize;
        Queue {
            pair,
            shape,
            rx: Mutex::new(Receiving {
                frames: (0..size).map(|_| None).collect(),
                free: (0..shape.ring_size).rev().collect(),
                taken: Completions::default(),
                list: Receives::default(),
                armed: false,
            }),
            tx: Mutex::new(Sending {
                frames: (0..size).map(|_| None).collect(),
                next: 0,
                clean: 0,
                list: Sends::default(),
                taken: Completions::default(),
                peer: None,
                before: None,
            }),
            failed: AtomicBool::new(false),
            restarted: Mutex::new(None),
            from: AtomicU32::new(0),
            mtu,
            received: Arc::default(),
            sent: Arc::default(),
            status: Arc::clone(status),
            umem: Arc::clone(umem),
        }
    }

    pub(super) fn pair(&self) -> &dyn Pair {
        &*self.pair
    }

    pub(super) fn rx(&self) -> MutexGuard<'_, Receiving> {
        lock(&self.rx)
    }

    pub(super) fn tx(&self) -> MutexGuard<'_, Sending> {
        lock(&self.tx)
    }

    /// Starts it: every slot of the receive queue filled, as far as the pool has frames.
    pub(super) fn start(&self, cache: &mut Cache) -> bifurcate_linux::Result<()> {
        self.pair.start()?;
        self.refill(&mut self.rx(), cache, true);
        Ok(())
    }

    /// Bytes in front of what is received.
    pub(super) fn prefix(&self) -> u32 {
        if self.shape.datagrams { ROUTE_HEADER } else { 0 }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes note of what happened to the card.
    pub(super) fn hear(&self) {
        while let Some(event) = self.pair.event() {
            self.status.heard(event);
        }
    }

    /// A request came back undone.
    #[cold]
    pub(super) fn fail(&self, why: impl Into<String>) {
        self.status.trouble(why);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Gives the card frames for the slots that have none; waits for several, unless told to fill all. False when the
    /// pool has too few.
    pub(super) fn refill(&self, half: &mut Receiving, cache: &mut Cache, all: bool) -> bool {
        let size = self.shape.ring_size as usize;
        if half.free.len() < if all { 1 } else { REFILL.min(size / 4) } {
            return true;
        }
        let base = self.umem.base().as_ptr() as u64;
        let prefix = self.prefix();
        let room = self.umem.frame_size() - HEADROOM;
        let mut slots = [0; WORK_MAX];
        while !half.free.is_empty() {
            let mut count = 0;
            while count < WORK_MAX {
                let Some(slot) = half.free.pop() else { break };
                let Some(frame) = cache.take() else {
                    half.free.push(slot);
                    break;
                };
                let address = base + u64::from(frame.offset() - prefix);
                half.list
                    .push(slot.into(), address, prefix + room, self.shape.lkey);
                half.frames[slot as usize] = Some(frame);
                slots[count] = slot;
                count += 1;
            }
            if count == 0 {
                return false;
            }
            let (posted, result) = self.pair.post_receives(&mut half.list);
            for &slot in &slots[posted.min(count)..count] {
                if let Some(frame) = half.frames[slot as usize].take() {
                    cache.give(frame);
                }
                half.free.push(slot);
            }
            if let Err(error) = result {
                self.fail(error.to_string());
                return true;
            }
        }
        true
    }

    /// Takes the frames back whose sending is over.
    pub(super) fn collect(&self, half: &mut Sending, cache: &mut Cache) {
        loop {
            match self.pair.poll(Side::Send, &mut half.taken) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return self.status.gone(error.to_string()),
            }
            while let Some(done) = half.taken.next() {
                self.retire(half, cache, done);
            }
        }
        if half.under_way() == 0 {
            half.before = None;
        }
    }

    /// A request is over, and so are all before it: the card does them in order.
    fn retire(&self, half: &mut Sending, cache: &mut Cache, done: Completion) {
        let number = done.id as u32;
        if number.wrapping_sub(half.clean) >= half.under_way() {
            self.sent.invalid_descriptor.add(1);
            return;
        }
        let end = number.wrapping_add(1);
        while half.clean != end {
            let at = half.clean;
            if let Some(frame) = half.slot(at).take() {
                cache.give(frame);
            }
            half.clean = at.wrapping_add(1);
        }
        if done.status != WcStatus::Success {
            self.sent.device_error.add(1);
            self.fail(format!("a send ended with {:?}", done.status));
        }
    }

    /// Datagrams of that queue pair are taken from now on, and of no other; of none: 0.
    pub(super) fn expect(&self, queue_pair: u32) {
        self.from.store(queue_pair, Ordering::Relaxed);
    }

    /// Who frames are sent to from now on; datagrams are at most `largest` bytes.
    pub(super) fn meet(&self, peer: Option<Peer>, largest: u32) {
        let mut half = self.tx();
        self.mtu.set(largest.saturating_sub(ETHERNET_HEADER));
        // Sends that are under way may name the one before, and the card looks it up when it comes to them.
        if let Some(before) = std::mem::replace(&mut half.peer, peer) {
            half.before = Some(before);
        }
    }

    /// Sets a queue pair up again that has failed: reset, so that the card has none of the frames, and started.
    #[cold]
    pub(super) fn restart(&self, cache: &mut Cache) {
        // Always in this order.
        let mut rx = self.rx();
        let mut tx = self.tx();
        let mut last = lock(&self.restarted);
        let rests = last.is_some_and(|at| at.elapsed() < PATIENCE);
        if !self.has_failed() || rests || self.status.state() == crate::device::State::Gone {
            return;
        }
        *last = Some(Instant::now());
        if let Err(error) = self.pair.reset() {
            return self.status.gone(error.to_string());
        }
        // What completed before: the numbers are given out anew. As many as both rings hold, and no more.
        let lost = self.drain(Side::Receive, &mut rx.taken);
        self.received.device_error.add(lost);
        self.drain(Side::Send, &mut tx.taken);
        let aborted = tx.under_way();
        self.sent.device_error.add(aborted.into());
        for frame in rx
            .frames
            .iter_mut()
            .chain(&mut tx.frames)
            .filter_map(Option::take)
        {
            cache.give(frame);
        }
        rx.free.clear();
        rx.free.extend((0..self.shape.ring_size).rev());
        tx.clean = tx.next;
        tx.before = None;
        rx.armed = false;
        self.failed.store(false, Ordering::Relaxed);
        if let Err(error) = self.pair.start() {
            return self.status.gone(error.to_string());
        }
        self.status.restarted();
        self.refill(&mut rx, cache, true);
    }

    /// Empties a completion queue; gives how many frames were in it that had been received.
    fn drain(&self, side: Side, taken: &mut Completions) -> u64 {
        let mut received = 0;
        for _ in 0..=(2 * self.shape.ring_size as usize).div_ceil(WORK_MAX) {
            received += taken.filter(|done| done.status == WcStatus::Success).count() as u64;
            match self.pair.poll(side, taken) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.status.gone(error.to_string());
                    break;
                }
            }
        }
        received
    }
}

/// What a card that was taken away answers (asm-generic/errno-base.h).
const ENODEV: i32 = 19;

impl Drop for Queue {
    fn drop(&mut self) {
        // A card that was taken away does nothing any more; one that is there and refuses might still write: then its
        // frames stay lost, and the pool goes with its mapping.
        let refused = self.pair.reset().is_err_and(|error| error.errno != ENODEV);
        if refused && !self.status.is_taken_away() {
            return;
        }
        let mut cache = Cache::new(&self.umem);
        let rx = self.rx.get_mut().unwrap_or_else(PoisonError::into_inner);
        let tx = self.tx.get_mut().unwrap_or_else(PoisonError::into_inner);
        for frame in rx
            .frames
            .iter_mut()
            .chain(&mut tx.frames)
            .filter_map(Option::take)
        {
            cache.give(frame);
        }
    }
}
