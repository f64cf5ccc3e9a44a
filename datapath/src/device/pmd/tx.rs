//! Sending: frames of the batch become descriptors, one doorbell a batch, and one descriptor of each asks for its end.

use std::sync::Arc;

use super::dma::{Pool, Slots};
use super::nic::Quiet;
use super::registers::Registers;
use super::words::{SHORTEST, TransmitWords};
use crate::device::{Counters, TxQueue};
use crate::frame::{Batch, Cache, Frame};

/// Frames that were sent are collected when more than this part of the ring is under way.
const COLLECT_PART: u32 = 4;

/// The sending half of a queue.
pub(super) struct Tx {
    slots: Slots,
    /// The frame of each slot that is under way.
    frames: Vec<Option<Frame>>,
    /// Free running: the next slot to fill, and the first one under way.
    next: u32,
    clean: u32,
    /// The last slot of each doorbell, first in first out, as free running numbers: those that ask for DD.
    reports: Vec<u32>,
    first_report: u32,
    next_report: u32,
    words: TransmitWords,
    longest: u32,
    /// Bytes of the pool that a card has, and the pool's number.
    area: u32,
    pool_id: u32,
    pool: Pool,
    registers: Arc<dyn Registers>,
    doorbell: u32,
    shared: Arc<Quiet>,
    counters: Arc<Counters>,
}

impl Tx {
    pub(super) fn new(
        slots: Slots,
        doorbell: u32,
        words: TransmitWords,
        longest: u32,
        pool: Pool,
        registers: &Arc<dyn Registers>,
        shared: &Arc<Quiet>,
    ) -> Tx {
        let size = slots.size() as usize;
        Tx {
            slots,
            frames: (0..size).map(|_| None).collect(),
            next: 0,
            clean: 0,
            reports: vec![0; size],
            first_report: 0,
            next_report: 0,
            words,
            longest,
            area: pool.umem.area(),
            pool_id: pool.umem.id(),
            pool,
            registers: Arc::clone(registers),
            doorbell,
            shared: Arc::clone(shared),
            counters: Arc::default(),
        }
    }

    fn under_way(&self) -> u32 {
        self.next.wrapping_sub(self.clean)
    }

    /// Takes the frames back that have been sent. One slot stays free: a full ring would look like an empty one.
    fn collect(&mut self, cache: &mut Cache) {
        let mask = self.slots.mask();
        while self.first_report != self.next_report {
            let last = self.reports[(self.first_report & mask) as usize];
            if !TransmitWords::is_done(self.slots.read(last, 1)) {
                break;
            }
            self.first_report = self.first_report.wrapping_add(1);
            let end = last.wrapping_add(1);
            while self.clean != end {
                if let Some(frame) = self.frames[(self.clean & mask) as usize].take() {
                    cache.give(frame);
                }
                self.clean = self.clean.wrapping_add(1);
            }
        }
    }

    /// A frame that can never be sent.
    #[cold]
    fn refuse(&self, frame: Frame, cache: &mut Cache) {
        if frame.len() < SHORTEST {
            self.counters.handler_invalid.add(1);
        } else {
            self.counters.too_long.add(1);
        }
        cache.give(frame);
    }
}

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let mask = self.slots.mask();
        if self.under_way() > self.slots.size() / COLLECT_PART || (batch.is_empty() && self.under_way() > 0) {
            self.collect(batch.cache_mut());
        }
        let (first, mut bytes, mut word) = (self.next, 0u64, 0);
        while let Some(frame) = batch.next_send() {
            let len = frame.len();
            if len < SHORTEST
                || len > self.longest
                || frame.offset() >= self.area
                || frame.pool() != self.pool_id
            {
                self.refuse(frame, batch.cache_mut());
                continue;
            }
            if self.under_way() >= mask {
                self.collect(batch.cache_mut());
                if self.under_way() >= mask {
                    self.counters.ring_full.add(1);
                    batch.cache_mut().give(frame);
                    continue;
                }
            }
            word = self.words.word(len);
            self.slots.write(self.next, 0, self.pool.address(&frame));
            self.slots.write(self.next, 1, word);
            self.frames[(self.next & mask) as usize] = Some(frame);
            self.next = self.next.wrapping_add(1);
            bytes += u64::from(len);
        }
        let count = self.next.wrapping_sub(first);
        if count > 0 {
            let last = self.next.wrapping_sub(1);
            self.slots.write(last, 1, word | self.words.report());
            self.reports[(self.next_report & mask) as usize] = last;
            self.next_report = self.next_report.wrapping_add(1);
            self.registers.write(self.doorbell, self.next & mask);
            self.counters.sent.add(count.into());
            self.counters.sent_bytes.add(bytes);
        }
        count as usize
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.shared.adopt(self.frames.drain(..).flatten());
    }
}
