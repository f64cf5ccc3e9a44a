//! Trouble on purpose, over any device: frames dropped, corrupted or delayed, the same ones for the same seed.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::device::{Counters, LeftToCard, Mtu, QueuePair, RxQueue, State, TxQueue};
use crate::frame::{Batch, Frame};

/// What goes wrong, and how often. Rates are frames in 65,536: 655 is one in a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames lost, in either direction.
    pub drop: u16,
    /// Frames in which one bit is turned, in either direction.
    pub corrupt: u16,
    /// Received frames held back.
    pub delay: u16,
    /// For how many polls a held frame is held.
    pub delay_polls: u32,
    /// What the choice of frames starts from.
    pub seed: u64,
}

/// Puts faults around a queue. A lost frame is counted as dropped by this wrapper's own counters
/// ([`Faulty::counters`]); the queue's stay what they are.
#[must_use]
pub fn wrap(pair: QueuePair, faults: Faults) -> Faulty {
    let counters: Arc<Counters> = Arc::default();
    let counters_tx: Arc<Counters> = Arc::default();
    let rx = FaultRx {
        inner: pair.rx,
        faults,
        random: Random(faults.seed),
        held: VecDeque::new(),
        polls: 0,
        lost: Arc::clone(&counters),
    };
    let tx = FaultTx {
        inner: pair.tx,
        faults,
        // The other direction's own sequence: what it drops does not depend on what was received.
        random: Random(!faults.seed),
        lost: Arc::clone(&counters_tx),
    };
    Faulty {
        pair: QueuePair {
            index: pair.index,
            rx: Box::new(rx),
            tx: Box::new(tx),
        },
        counters: [counters, counters_tx],
    }
}

/// A queue with faults around it.
pub struct Faulty {
    /// The queue, to be used like every other.
    pub pair: QueuePair,
    /// What the wrapper lost (`dropped`): received, and to be sent.
    pub counters: [Arc<Counters>; 2],
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True `rate` times in 65,536.
    fn happens(&mut self, rate: u16) -> bool {
        (self.next() >> 48) < u64::from(rate)
    }

    fn corrupt(&mut self, bytes: &mut [u8]) {
        let at = self.next();
        if let Some(byte) = (at as usize >> 3)
            .checked_rem(bytes.len())
            .and_then(|i| bytes.get_mut(i))
        {
            *byte ^= 1 << (at & 7);
        }
    }

    /// Does to a frame what the rates say; false when it is lost.
    fn strike(&mut self, faults: &Faults, bytes: &mut [u8]) -> bool {
        if self.happens(faults.drop) {
            return false;
        }
        if self.happens(faults.corrupt) {
            self.corrupt(bytes);
        }
        true
    }
}

struct FaultRx {
    inner: Box<dyn RxQueue>,
    faults: Faults,
    random: Random,
    /// Frames held back, and the poll at which each is due. Due in the order they were held.
    held: VecDeque<(u64, Frame)>,
    polls: u64,
    lost: Arc<Counters>,
}

/// Most frames held back at a time: as many as a small pool can spare.
const HELD_MAX: usize = 64;

impl RxQueue for FaultRx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        self.polls += 1;
        let before = batch.len();
        // Frames that are due come first: they arrived first.
        while batch.room() > 0 && self.held.front().is_some_and(|(due, _)| *due <= self.polls) {
            if let Some((_, frame)) = self.held.pop_front()
                && let Err(frame) = batch.push(frame)
            {
                batch.cache_mut().give(frame);
            }
        }
        let due = batch.len() - before;
        self.inner.poll(batch);
        let Self {
            faults, random, lost, ..
        } = self;
        let mut at = 0;
        let gone = batch.retain(|bytes| {
            at += 1;
            // What was in the batch already, and what was held, has had its share.
            at <= before + due || random.strike(faults, bytes)
        });
        lost.dropped.add(gone as u64);
        if self.faults.delay > 0 {
            self.hold(batch, before + due);
        }
        batch.len() - before
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        // Somebody has to turn the loop for held frames to come out.
        if self.held.is_empty() {
            self.inner.ready_fd()
        } else {
            None
        }
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.inner.prepare_to_wait()
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn is_starving(&self) -> bool {
        self.inner.is_starving()
    }

    fn left_to_card(&self) -> LeftToCard {
        self.inner.left_to_card()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.inner.counters()
    }
}

impl FaultRx {
    fn hold(&mut self, batch: &mut Batch, from: usize) {
        let mut holes = false;
        for at in from..batch.len() {
            if self.held.len() < HELD_MAX && self.random.happens(self.faults.delay) {
                let due = self.polls + u64::from(self.faults.delay_polls.max(1));
                self.held.extend(batch.take(at).map(|frame| (due, frame)));
                holes = true;
            }
        }
        if holes {
            // Closes the gaps that the taken frames left.
            batch.retain(|_| true);
        }
    }
}

struct FaultTx {
    inner: Box<dyn TxQueue>,
    faults: Faults,
    random: Random,
    lost: Arc<Counters>,
}

impl TxQueue for FaultTx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let Self { faults, random, .. } = self;
        let gone = batch.retain_sends(|bytes| random.strike(faults, bytes));
        self.lost.dropped.add(gone as u64);
        self.inner.send(batch)
    }

    fn is_waiting(&self) -> bool {
        self.inner.is_waiting()
    }

    fn mtu(&self) -> Option<&Mtu> {
        self.inner.mtu()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.inner.counters()
    }
}
