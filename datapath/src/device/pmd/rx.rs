//! Receiving: done descriptors become frames of the batch, and each slot has a fresh frame at once.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::dma::{Pool, Slots};
use super::nic::{Presence, Quiet};
use super::registers::Registers;
use super::words::{self, SHORTEST};
use crate::device::{Counters, RxQueue, State};
use crate::frame::{Batch, Cache, Frame};

/// How often the card is asked whether it is there.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Polls that find nothing look at the clock once in this many.
const POLLS_PER_CLOCK: u32 = 64;

/// The card hears of free slots when this part of the ring is: its doorbell is a write that the processor waits for,
/// under a hypervisor an exit.
const DOORBELL_PART: u32 = 8;

/// The receiving half of a queue.
pub(super) struct Rx {
    slots: Slots,
    /// The frame of each slot.
    frames: Vec<Frame>,
    next: u32,
    /// Slots filled anew that the card has not been told of.
    held: u32,
    pool: Pool,
    registers: Arc<dyn Registers>,
    doorbell: u32,
    queue: u32,
    /// The rest of a frame that is lost is on its way.
    skipping: bool,
    starving: bool,
    interrupts: bool,
    /// The next frame raises an interrupt.
    armed: bool,
    shared: Arc<Quiet>,
    state: AtomicU8,
    counters: Arc<Counters>,
    polls: u32,
    looked: Instant,
}

impl Rx {
    pub(super) fn new(
        ring: Ring,
        frames: Vec<Frame>,
        pool: Pool,
        registers: &Arc<dyn Registers>,
        shared: &Arc<Quiet>,
    ) -> Rx {
        Rx {
            slots: ring.slots,
            frames,
            next: 0,
            held: 0,
            pool,
            registers: Arc::clone(registers),
            doorbell: ring.doorbell,
            queue: ring.queue,
            skipping: false,
            starving: false,
            interrupts: ring.interrupts,
            armed: false,
            shared: Arc::clone(shared),
            state: AtomicU8::new(State::Up as u8),
            counters: Arc::default(),
            polls: 0,
            looked: Instant::now(),
        }
    }

    /// A descriptor that is no whole frame of a length that can be.
    #[cold]
    fn refuse(&mut self, frame: Frame, word: u64, cache: &mut Cache) {
        cache.give(frame);
        let last = words::is_last(word);
        if !last && !self.skipping {
            self.counters.too_long.add(1);
        } else if !self.skipping {
            self.counters.invalid_descriptor.add(1);
        }
        self.skipping = !last;
    }

    fn ring_doorbell(&mut self) {
        self.held = 0;
        let tail = self.next.wrapping_sub(1) & self.slots.mask();
        self.registers.write(self.doorbell, tail);
    }

    /// Somebody may have slept on the interrupt: no more of them while frames are polled.
    #[cold]
    fn wake(&mut self) {
        self.armed = false;
        self.shared.nic.disarm(self.queue);
        if let Some(card) = &self.shared.card {
            card.acknowledge_interrupt(self.vector());
        }
    }

    fn vector(&self) -> u32 {
        let vectors = self.shared.card.as_ref().is_some_and(|card| card.has_vectors());
        if vectors { self.queue } else { 0 }
    }

    /// Looks whether the card is there, now and then.
    fn look(&mut self) {
        self.polls = self.polls.wrapping_add(1);
        if !self.polls.is_multiple_of(POLLS_PER_CLOCK) || self.looked.elapsed() < HOUSEKEEPING {
            return;
        }
        self.looked = Instant::now();
        let state = match self.shared.presence() {
            Presence::Here => State::Up,
            Presence::Down => State::Down,
            Presence::Gone => State::Gone,
        };
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

/// A ring before it has frames.
pub(super) struct Ring {
    pub(super) slots: Slots,
    /// Offset of the tail register.
    pub(super) doorbell: u32,
    pub(super) queue: u32,
    pub(super) interrupts: bool,
}

impl RxQueue for Rx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        if self.armed {
            self.wake();
        }
        let room = batch.room();
        let (mut done, mut frames, mut bytes) = (0, 0usize, 0u64);
        while done < room {
            let slot = self.next;
            let word = self.slots.read(slot, 1);
            if !words::is_done(word) {
                break;
            }
            let Some(fresh) = batch.cache_mut().take() else {
                self.counters.no_frames.add(1);
                self.starving = true;
                break;
            };
            self.slots.write(slot, 0, self.pool.address(&fresh));
            self.slots.write(slot, 1, 0);
            let mut frame = std::mem::replace(&mut self.frames[(slot & self.slots.mask()) as usize], fresh);
            self.next = slot.wrapping_add(1) & self.slots.mask();
            done += 1;
            let len = words::length(word);
            if !words::is_whole(word)
                || self.skipping
                || len < SHORTEST
                || !batch.cache_mut().set_len(&mut frame, len as usize)
            {
                self.refuse(frame, word, batch.cache_mut());
                continue;
            }
            frames += 1;
            bytes += u64::from(len);
            if let Err(frame) = batch.push(frame) {
                batch.cache_mut().give(frame);
            }
        }
        if done == 0 {
            self.look();
            return 0;
        }
        self.starving &= done == 0;
        self.held += done as u32;
        if self.held >= self.slots.size() / DOORBELL_PART {
            self.ring_doorbell();
        }
        self.counters.received.add(frames as u64);
        self.counters.received_bytes.add(bytes);
        frames
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        if !self.interrupts {
            return None;
        }
        self.shared.card.as_ref()?.interrupt_fd(self.vector())
    }

    fn prepare_to_wait(&mut self) -> bool {
        if !self.interrupts {
            return true;
        }
        self.armed = true;
        self.shared.nic.arm(self.queue);
        if let Some(card) = &self.shared.card {
            card.unmask_interrupt();
        }
        // A frame that came before the interrupt was armed raises none.
        !words::is_done(self.slots.read(self.next, 1))
    }

    fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            value if value == State::Gone as u8 => State::Gone,
            value if value == State::Down as u8 => State::Down,
            _ => State::Up,
        }
    }

    fn is_starving(&self) -> bool {
        self.starving
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.shared.adopt(self.frames.drain(..));
    }
}
