//! The way from a half of a queue to a card: where the pool is for it, its notifications, its interrupts.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bifurcate_linux::dma::DmaTable;

use crate::device::State;
use crate::device::pmd::{Presence, Quiet};
use crate::frame::{Cache, Umem};

use super::super::queue::Queue;
use super::super::rings::RingMemory;
use super::super::transport::Transport;
use super::registers::{ISR_STATUS, Structures};

/// How often the card is asked whether it is there.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Polls that find nothing look at the clock once in this many.
const POLLS_PER_CLOCK: u32 = 64;

/// What the halves of all queues share.
pub(super) struct Shared {
    pub(super) structures: Arc<dyn Structures>,
    pub(super) queues: Vec<Arc<Queue>>,
    pub(super) rings: RingMemory,
    pub(super) umem: Arc<Umem>,
    pub(super) frames: Arc<DmaTable>,
    /// Bytes of the pool that the card reaches.
    pub(super) reach: u32,
    /// QUEUE_NOTIFY_OFF of each ring.
    pub(super) notify: Vec<u32>,
    pub(super) interrupts: bool,
    /// MSI-X: a vector a queue pair. Else one interrupt for everything.
    pub(super) vectors: bool,
    pub(super) state: AtomicU8,
    pub(super) quiet: Arc<Quiet>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The card still has them: they are free when it is quiet.
        let mut cache = Cache::new(&self.umem);
        for queue in &self.queues {
            self.quiet.adopt(queue.lock().take_all(&mut cache).into_iter());
        }
    }
}

/// The way to a card, as one half of a queue has it.
#[derive(Clone)]
pub(super) struct OnCard {
    shared: Arc<Shared>,
    polls: u32,
    looked: Instant,
}

impl OnCard {
    pub(super) fn new(shared: &Arc<Shared>) -> OnCard {
        OnCard {
            shared: Arc::clone(shared),
            polls: 0,
            looked: Instant::now(),
        }
    }

    /// The vector of ring `index`, as the card's mechanism counts them.
    fn vector(&self, index: usize) -> u32 {
        if self.shared.vectors { index as u32 / 2 } else { 0 }
    }
}

impl Transport for OnCard {
    #[inline]
    fn reach(&self) -> u32 {
        self.shared.reach
    }

    #[inline]
    fn address(&self, offset: u32) -> u64 {
        self.shared.frames.address(offset)
    }

    fn indirect(&self, index: usize, packed: bool, id: u16, addr: u64, len: u32) -> (u64, u32) {
        self.shared.rings.indirect(index, packed, id, addr, len)
    }

    #[inline]
    fn kick(&self, index: usize) {
        self.shared
            .structures
            .notify(self.shared.notify[index], index as u16);
    }

    fn ready_fd(&self, index: usize) -> Option<BorrowedFd<'_>> {
        let card = self
            .shared
            .quiet
            .card
            .as_ref()
            .filter(|_| self.shared.interrupts)?;
        card.interrupt_fd(self.vector(index))
    }

    fn lower(&self, index: usize) {
        if let Some(card) = self.shared.quiet.card.as_ref().filter(|_| self.shared.interrupts) {
            card.acknowledge_interrupt(self.vector(index));
        }
        if self.shared.interrupts && !self.shared.vectors {
            self.shared.structures.read(ISR_STATUS);
        }
    }

    fn unmask(&self) {
        if let Some(card) = self.shared.quiet.card.as_ref().filter(|_| self.shared.interrupts) {
            card.unmask_interrupt();
        }
    }

    fn polled(&mut self, idle: bool) {
        if !idle {
            return;
        }
        self.polls = self.polls.wrapping_add(1);
        // One that sleeps polls seldom, and looks each time.
        let often = !self.shared.interrupts;
        if often && !self.polls.is_multiple_of(POLLS_PER_CLOCK) || self.looked.elapsed() < HOUSEKEEPING {
            return;
        }
        self.looked = Instant::now();
        let state = match self.shared.quiet.presence() {
            Presence::Here => State::Up,
            Presence::Down => State::Down,
            Presence::Gone => State::Gone,
        };
        self.shared.state.store(state as u8, Ordering::Relaxed);
    }

    #[inline]
    fn state(&self, _up: bool) -> State {
        match self.shared.state.load(Ordering::Relaxed) {
            value if value == State::Gone as u8 => State::Gone,
            value if value == State::Down as u8 => State::Down,
            _ => State::Up,
        }
    }
}
