//! Receiving: the device writes into frames of the pool, and nothing here copies them.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::device::{Counters, RxQueue, State};
use crate::frame::{Batch, Cache, Frame, HEADROOM};
use crate::ring::virtio::{DriverRing, NET_HEADER, NUM_BUFFERS_AT, WRITE, feature};

use crate::vhost_user::Service;

use super::open::Shared;
use super::queue::{AnyRing, Half, Live, POOL_AT, Queue};

/// Free frames are given to the device this many at a time.
const REFILL: u16 = 32;

/// Bytes of the largest packet without merging: an MTU of 1,500, Ethernet, two VLAN tags.
const PACKET: u32 = 1522;

/// The receiving half of a queue.
pub(super) struct Rx {
    queue: Arc<Queue>,
    /// The connection lasts as long as a half of a queue does. Before what it shares, so that it has ended by then.
    _service: Arc<Service>,
    shared: Arc<Shared>,
    state: State,
    starving: bool,
    /// A packet in several buffers, of which some are still to come.
    merging: Option<Merging>,
    hostile: u64,
    counters: Arc<Counters>,
}

/// What is there of a packet that several buffers are merged to.
struct Merging {
    /// In a jumbo frame; `None` when the packet is lost, and its buffers only go back.
    frame: Option<Frame>,
    /// Buffers still to come.
    left: u16,
}

impl Rx {
    pub(super) fn new(queue: &Arc<Queue>, shared: &Arc<Shared>, service: &Arc<Service>) -> Rx {
        Rx {
            queue: Arc::clone(queue),
            _service: Arc::clone(service),
            shared: Arc::clone(shared),
            state: State::Down,
            starving: false,
            merging: None,
            hostile: 0,
            counters: Arc::default(),
        }
    }

    /// Bytes of a packet that one buffer has room for.
    fn room(cache: &Cache) -> u32 {
        (cache.umem().frame_size() - HEADROOM - NET_HEADER).min(PACKET.next_multiple_of(64))
    }

    fn poll_ring<R: DriverRing>(
        &mut self,
        ring: &mut R,
        lent: &mut crate::frame::Lent,
        merges: bool,
        up: bool,
        batch: &mut Batch,
    ) -> Polled {
        let room = Rx::room(batch.cache());
        let mut polled = Polled::default();
        self.starving = false;
        if up && ring.room() >= REFILL.min(ring.size()) {
            polled.kick = self.refill(ring, lent, room, batch);
        }
        // What is in the handler's hands the device does not have, so no poll takes more than a quarter of the ring.
        let quarter = (ring.size() / 4).max(1);
        let most = batch.room().min(usize::from(quarter));
        while polled.frames < most {
            let Some(used) = ring.pop_used() else { break };
            polled.used += 1;
            let Some(frame) = lent.reclaim(used.id, used.len.wrapping_sub(NET_HEADER)) else {
                polled.invalid += 1;
                continue;
            };
            ring.free(used.id);
            let len = used.len.wrapping_sub(NET_HEADER);
            // A buffer that is not full ends its packet: its header need not be fetched to know that.
            if len.wrapping_sub(1) >= room || self.merging.is_some() || merges && len == room {
                self.merge(frame, used.len, room, merges, batch, &mut polled);
                continue;
            }
            polled.frames += 1;
            polled.bytes += u64::from(len);
            if let Err(frame) = batch.push(frame) {
                batch.cache_mut().give(frame);
            }
        }
        // A hole of that size is filled before the handler's turn: packets that it sends on at once may come back
        // before the next poll. A smaller one is filled at the next poll, with the very frames that the handler drops:
        // the descriptors are then the same as a lap before.
        if up && ring.room() >= quarter {
            polled.kick |= self.refill(ring, lent, room, batch);
        }
        let hostile = ring.hostile();
        polled.invalid += hostile - self.hostile.min(hostile);
        self.hostile = hostile;
        polled
    }

    /// Gives the device free frames for every buffer that it lacks. True when it wants to be told.
    fn refill<R: DriverRing>(
        &mut self,
        ring: &mut R,
        lent: &mut crate::frame::Lent,
        room: u32,
        batch: &mut Batch,
    ) -> bool {
        let missing = usize::from(ring.room());
        let bytes = room + NET_HEADER;
        let got = lent.lend_free(batch, missing, bytes, NET_HEADER, |offset| {
            let id = ring.next_id();
            ring.add(POOL_AT + u64::from(offset), bytes, WRITE);
            id
        });
        if got < missing {
            self.counters.no_frames.add(1);
            self.starving = true;
        }
        ring.publish();
        ring.wants_kick()
    }

    /// A buffer that is full, belongs to a packet in several, or cannot be.
    #[cold]
    fn merge(
        &mut self,
        mut frame: Frame,
        used: u32,
        room: u32,
        merges: bool,
        batch: &mut Batch,
        polled: &mut Polled,
    ) {
        let cache = batch.cache_mut();
        if let Some(mut merging) = self.merging.take() {
            // Every buffer after the first is packet from its first byte on, where the first has its header.
            let whole = used <= room + NET_HEADER && used > 0;
            let appended = whole
                && cache.move_start(&mut frame, -(NET_HEADER as i32))
                && cache.set_len(&mut frame, used as usize)
                && merging
                    .frame
                    .as_mut()
                    .is_some_and(|to| cache.append(to, cache.bytes(&frame)));
            if !appended && let Some(lost) = merging.frame.take() {
                polled.lost(whole);
                cache.give(lost);
            }
            cache.give(frame);
            merging.left -= 1;
            if merging.left > 0 {
                self.merging = Some(merging);
                return;
            }
            if let Some(frame) = merging.frame {
                polled.frames += 1;
                polled.bytes += u64::from(frame.len());
                if let Err(frame) = batch.push(frame) {
                    batch.cache_mut().give(frame);
                }
            }
            return;
        }
        let buffers = match cache.before_mut::<{ NET_HEADER as usize }>(&mut frame) {
            Some(header) if merges => {
                u16::from_le_bytes([header[NUM_BUFFERS_AT], header[NUM_BUFFERS_AT + 1]])
            }
            _ => 1,
        };
        if used <= NET_HEADER || used > room + NET_HEADER || buffers == 0 {
            polled.invalid += 1;
            cache.give(frame);
            return;
        }
        if buffers == 1 {
            polled.frames += 1;
            polled.bytes += u64::from(frame.len());
            if let Err(frame) = batch.push(frame) {
                batch.cache_mut().give(frame);
            }
            return;
        }
        let mut whole = cache.take_jumbo();
        match &mut whole {
            Some(whole) => {
                cache.append(whole, cache.bytes(&frame));
            }
            None => self.counters.no_frames.add(1),
        }
        cache.give(frame);
        self.merging = Some(Merging {
            frame: whole,
            left: buffers - 1,
        });
    }
}

#[derive(Default)]
struct Polled {
    frames: usize,
    bytes: u64,
    /// Buffers that the device gave back.
    used: usize,
    invalid: u64,
    too_long: u64,
    kick: bool,
}

impl Polled {
    /// A packet that was being merged cannot be finished: it is too long, or a buffer of it cannot be.
    fn lost(&mut self, too_long: bool) {
        if too_long {
            self.too_long += 1;
        } else {
            self.invalid += 1;
        }
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let queue = Arc::clone(&self.queue);
        let mut half = queue.lock();
        let Half {
            live,
            up,
            arrived,
            armed,
            ..
        } = &mut *half;
        self.state = self.shared.state(*up);
        if self.state == State::Gone {
            return 0;
        }
        let mut before = 0;
        if !arrived.is_empty() {
            before = hand_over(arrived, batch, &self.counters);
        }
        let Some(Live { ring, lent, features }) = live else {
            return before;
        };
        let merges = *features & feature::MRG_RXBUF != 0;
        let polled = match ring {
            AnyRing::Split(ring) => self.poll_ring(ring, lent, merges, *up, batch),
            AnyRing::Packed(ring) => self.poll_ring(ring, lent, merges, *up, batch),
        };
        if polled.kick {
            queue.kick.raise();
        }
        if polled.used > 0 {
            if *armed {
                *armed = false;
                ring.as_dyn().disable_calls();
            }
            self.counters.received.add(polled.frames as u64);
            self.counters.received_bytes.add(polled.bytes);
            if polled.invalid + polled.too_long > 0 {
                self.counters.invalid_descriptor.add(polled.invalid);
                self.counters.too_long.add(polled.too_long);
            }
        }
        before + polled.frames
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.call.as_fd())
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.queue.call.lower();
        let mut half = self.queue.lock();
        let half = &mut *half;
        match &mut half.live {
            Some(live) if half.up => {
                half.armed = true;
                live.ring.as_dyn().enable_calls()
            }
            _ => true,
        }
    }

    fn state(&self) -> State {
        self.state
    }

    fn is_starving(&self) -> bool {
        self.starving
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// Frames that the device had written before it went.
#[cold]
fn hand_over(
    arrived: &mut std::collections::VecDeque<Frame>,
    batch: &mut Batch,
    counters: &Counters,
) -> usize {
    let mut count = 0;
    while batch.room() > 0 {
        let Some(frame) = arrived.pop_front() else { break };
        counters.received.add(1);
        counters.received_bytes.add(u64::from(frame.len()));
        if let Err(frame) = batch.push(frame) {
            batch.cache_mut().give(frame);
        }
        count += 1;
    }
    count
}

impl Drop for Rx {
    fn drop(&mut self) {
        if let Some(Merging {
            frame: Some(frame), ..
        }) = self.merging.take()
        {
            Cache::new(self.shared.umem()).give(frame);
        }
    }
}
