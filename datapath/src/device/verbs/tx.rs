//! Sending: the card reads frames where they are; their completions give them back.

use std::sync::Arc;

use bifurcate_linux::verbs::WORK_MAX;

use super::queue::{ETHERNET_HEADER, Queue, Sending};
use crate::device::{Counters, Mtu, State, TxQueue};
use crate::frame::{Batch, Frame};

/// Frames are taken back when this part of the ring is under way.
const COLLECT_PART: u32 = 2;

/// The sending half of a queue.
pub(super) struct Tx {
    queue: Arc<Queue>,
}

/// What one call of `send` has given the card.
#[derive(Default)]
struct Sent {
    frames: u64,
    bytes: u64,
}

impl Tx {
    pub(super) fn new(queue: &Arc<Queue>) -> Tx {
        Tx {
            queue: Arc::clone(queue),
        }
    }

    /// A frame that can never be sent, and the counter that says why.
    fn is_refused(&self, frame: &Frame) -> bool {
        let queue = &*self.queue;
        let longest = queue.mtu.get().saturating_add(ETHERNET_HEADER);
        if frame.len() < ETHERNET_HEADER {
            queue.sent.handler_invalid.add(1);
        } else if frame.len() > longest || frame.pool() != queue.umem.id() {
            queue.sent.too_long.add(1);
        } else {
            return false;
        }
        true
    }

    /// Posts what was gathered. What the card does not take is given back.
    fn post(&self, half: &mut Sending, batch: &mut Batch, sent: &mut Sent) {
        let count = half.list.len();
        let Sending { list, peer, .. } = half;
        let (posted, result) = self.queue.pair().post_sends(list, peer.as_ref());
        for _ in posted..count {
            if let Some(frame) = half.take_back() {
                sent.bytes -= u64::from(frame.len());
                batch.cache_mut().give(frame);
            }
            sent.frames -= 1;
            self.queue.sent.ring_full.add(1);
        }
        if let Err(error) = result {
            self.queue.fail(error.to_string());
        }
    }
}

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let queue = &*self.queue;
        if queue.has_failed() {
            queue.restart(batch.cache_mut());
        }
        let mut guard = queue.tx();
        let half = &mut *guard;
        let size = queue.shape.ring_size;
        if half.under_way() > size / COLLECT_PART || (batch.is_empty() && half.under_way() > 0) {
            queue.collect(half, batch.cache_mut());
        }
        let nobody = queue.shape.datagrams && half.peer.is_none();
        let idle = nobody || queue.has_failed() || queue.status.state() == State::Gone;
        let base = queue.umem.base().as_ptr() as u64;
        let mut sent = Sent::default();
        let mut asked = false;
        while let Some(frame) = batch.next_send() {
            if self.is_refused(&frame) {
                batch.cache_mut().give(frame);
                continue;
            }
            // Asked once a call: a card that has finished nothing is not asked again for each frame that is left.
            if half.under_way() == size && !idle && !asked {
                self.post(half, batch, &mut sent);
                queue.collect(half, batch.cache_mut());
                asked = half.under_way() == size;
            }
            if idle || half.under_way() == size {
                queue.sent.ring_full.add(1);
                batch.cache_mut().give(frame);
                continue;
            }
            let address = base + u64::from(frame.offset());
            half.list
                .push(half.next.into(), address, frame.len(), queue.shape.lkey);
            sent.frames += 1;
            sent.bytes += u64::from(frame.len());
            half.put(half.next, frame);
            half.next = half.next.wrapping_add(1);
            if half.list.len() == WORK_MAX {
                self.post(half, batch, &mut sent);
            }
        }
        if !half.list.is_empty() {
            self.post(half, batch, &mut sent);
        }
        queue.sent.sent.add(sent.frames);
        queue.sent.sent_bytes.add(sent.bytes);
        sent.frames as usize
    }

    fn mtu(&self) -> Option<&Mtu> {
        Some(&self.queue.mtu)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.queue.sent
    }
}
