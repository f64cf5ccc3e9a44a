//! Sending: the device reads frames where they are, and gives their ids back.

use std::sync::Arc;

use crate::device::{Counters, TxQueue};
use crate::frame::{Batch, Cache, Frame, Lent};
use crate::ring::virtio::{DriverRing, INDIRECT, NET_HEADER, feature};

use super::queue::{AnyRing, Half, Live, Queue};
use super::transport::Transport;

/// The sending half of a queue.
pub(super) struct Tx<T> {
    queue: Arc<Queue>,
    ring: Sender<T>,
    counters: Arc<Counters>,
}

/// What places frames in the ring, while that is locked.
struct Sender<T> {
    transport: T,
    /// The number of the ring.
    index: usize,
    /// The device may have jumbo frames, of which a pool has few: they are collected at once.
    jumbo: bool,
    hostile: u64,
}

impl<T: Transport> Tx<T> {
    pub(super) fn new(queue: &Arc<Queue>, transport: T, index: usize) -> Tx<T> {
        Tx {
            queue: Arc::clone(queue),
            ring: Sender {
                transport,
                index,
                jumbo: false,
                hostile: 0,
            },
            counters: Arc::default(),
        }
    }
}

impl<T: Transport> Sender<T> {
    fn send_ring<R: DriverRing>(
        &mut self,
        ring: &mut R,
        lent: &mut Lent,
        waiting: &mut std::collections::VecDeque<Frame>,
        indirect: bool,
        batch: &mut Batch,
    ) -> Sent {
        let mut sent = Sent::default();
        let want = batch.left() + waiting.len();
        // Collected late, so that a burst of used buffers is read together; and when there is nothing to send.
        if usize::from(ring.room()) < want + usize::from(ring.size() / 4) || want == 0 || self.jumbo {
            collect(ring, lent, batch.cache_mut(), &mut sent);
            self.jumbo = self.jumbo && lent.count() > 0;
        }
        while ring.room() > 0 {
            let Some(frame) = waiting.pop_front() else { break };
            self.place(ring, lent, indirect, frame, batch.cache_mut(), &mut sent);
        }
        while let Some(frame) = batch.next_send() {
            if ring.room() == 0 {
                collect(ring, lent, batch.cache_mut(), &mut sent);
            }
            if ring.room() == 0 {
                sent.full += 1;
                batch.cache_mut().give(frame);
                continue;
            }
            let len = frame.len();
            if self.place(ring, lent, indirect, frame, batch.cache_mut(), &mut sent) {
                sent.frames += 1;
                sent.bytes += u64::from(len);
            }
        }
        ring.publish();
        let hostile = ring.hostile();
        sent.invalid += hostile - self.hostile.min(hostile);
        self.hostile = hostile;
        sent.kick = ring.wants_kick();
        sent
    }

    /// Makes a frame available. There is room in the ring.
    #[inline(always)]
    fn place<R: DriverRing>(
        &mut self,
        ring: &mut R,
        lent: &mut Lent,
        indirect: bool,
        mut frame: Frame,
        cache: &mut Cache,
        sent: &mut Sent,
    ) -> bool {
        let len = frame.len();
        self.jumbo |= len > cache.umem().frame_size();
        if frame.is_empty() || frame.offset() >= self.transport.reach() {
            sent.refuse(frame.is_empty());
            cache.give(frame);
            return false;
        }
        match cache.before_mut::<{ NET_HEADER as usize }>(&mut frame) {
            // Nothing is left to the device (section 5.1.6.2): all zeros. Written only when they are not, which they
            // mostly are: the line then need not be taken from the device's cache.
            Some(header) => {
                if *header != [0; NET_HEADER as usize] {
                    *header = [0; NET_HEADER as usize];
                }
            }
            None => return self.place_without_header(ring, lent, indirect, frame, cache, sent),
        }
        match lent.lend(ring.next_id(), frame) {
            Ok(offset) => {
                ring.add(self.transport.address(offset - NET_HEADER), len + NET_HEADER, 0);
                true
            }
            Err(frame) => {
                cache.give(frame);
                false
            }
        }
    }

    /// As `place`, for a frame that begins where its chunk does: the header is elsewhere, and an indirect table names
    /// both. Where the device has no such tables, the frame is copied.
    #[cold]
    fn place_without_header<R: DriverRing>(
        &mut self,
        ring: &mut R,
        lent: &mut Lent,
        indirect: bool,
        frame: Frame,
        cache: &mut Cache,
        sent: &mut Sent,
    ) -> bool {
        let len = frame.len();
        if !indirect {
            let Some(mut copy) = cache.take_for(len as usize) else {
                sent.no_frames += 1;
                cache.give(frame);
                return false;
            };
            cache.append(&mut copy, cache.bytes(&frame));
            cache.give(frame);
            return self.place(ring, lent, indirect, copy, cache, sent);
        }
        let id = ring.next_id();
        match lent.lend(id, frame) {
            Ok(offset) => {
                let addr = self.transport.address(offset);
                let (table, bytes) = self
                    .transport
                    .indirect(self.index, ring.is_packed(), id, addr, len);
                ring.add(table, bytes, INDIRECT);
                true
            }
            Err(frame) => {
                cache.give(frame);
                false
            }
        }
    }
}

#[derive(Default)]
struct Sent {
    frames: u64,
    bytes: u64,
    full: u64,
    invalid: u64,
    empty: u64,
    no_frames: u64,
    unreachable: u64,
    kick: bool,
}

impl Sent {
    /// A frame that cannot be sent: an empty one, or one beyond the device's reach, which only a jumbo frame can be.
    #[cold]
    fn refuse(&mut self, empty: bool) {
        if empty {
            self.empty += 1;
        } else {
            self.unreachable += 1;
        }
    }
}

/// Takes what the device has sent back to the pool.
fn collect<R: DriverRing>(ring: &mut R, lent: &mut Lent, cache: &mut Cache, sent: &mut Sent) {
    while let Some(used) = ring.pop_used() {
        match lent.reclaim(used.id, 0) {
            Some(frame) => {
                ring.free(used.id);
                cache.give(frame);
            }
            None => sent.invalid += 1,
        }
    }
}

impl<T: Transport> TxQueue for Tx<T> {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let queue = &*self.queue;
        let mut half = queue.lock();
        let Half {
            live, up, waiting, ..
        } = &mut *half;
        let sent = match live {
            Some(Live {
                ring, lent, features, ..
            }) if *up => {
                let indirect = *features & feature::INDIRECT_DESC != 0;
                match ring {
                    AnyRing::Split(ring) => self.ring.send_ring(ring, lent, waiting, indirect, batch),
                    AnyRing::Packed(ring) => self.ring.send_ring(ring, lent, waiting, indirect, batch),
                }
            }
            _ => wait_for_device(waiting, usize::from(queue.size), batch),
        };
        if sent.kick {
            self.ring.transport.kick(self.ring.index);
        }
        self.counters.sent.add(sent.frames);
        self.counters.sent_bytes.add(sent.bytes);
        if sent.full + sent.invalid + sent.empty + sent.no_frames + sent.unreachable > 0 {
            self.counters.ring_full.add(sent.full);
            self.counters.invalid_descriptor.add(sent.invalid);
            self.counters.handler_invalid.add(sent.empty);
            self.counters.no_frames.add(sent.no_frames);
            self.counters.too_long.add(sent.unreachable);
        }
        sent.frames as usize
    }

    fn is_waiting(&self) -> bool {
        !self.queue.lock().waiting.is_empty()
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// No device is there: as many frames as its ring would hold are kept for the next one.
#[cold]
fn wait_for_device(waiting: &mut std::collections::VecDeque<Frame>, most: usize, batch: &mut Batch) -> Sent {
    let mut sent = Sent::default();
    while let Some(frame) = batch.next_send() {
        if waiting.len() < most {
            sent.frames += 1;
            sent.bytes += u64::from(frame.len());
            waiting.push_back(frame);
        } else {
            sent.full += 1;
            batch.cache_mut().give(frame);
        }
    }
    sent
}
