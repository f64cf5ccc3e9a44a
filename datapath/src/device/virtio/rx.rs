//! Receiving: the device writes into frames of the pool, and nothing here copies them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::device::{Counters, RxQueue, State};
use crate::frame::{Batch, Frame};
use crate::ring::virtio::{DriverRing, NET_HEADER, WRITE};

use super::packets::{Lost, Packets};
use super::queue::{AnyRing, Half, Live, Queue};
use super::transport::Transport;

/// Free frames are given to the device this many at a time.
const REFILL: u16 = 32;

/// The receiving half of a queue.
pub(super) struct Rx<T> {
    queue: Arc<Queue>,
    state: State,
    ring: Receiver<T>,
    counters: Arc<Counters>,
}

/// What takes frames out of the ring, while that is locked.
struct Receiver<T> {
    transport: T,
    /// The number of the ring.
    index: usize,
    /// The pool has no frame for every buffer.
    starving: bool,
    hostile: u64,
}

impl<T: Transport> Rx<T> {
    pub(super) fn new(queue: &Arc<Queue>, transport: T, index: usize) -> Rx<T> {
        Rx {
            queue: Arc::clone(queue),
            state: State::Down,
            ring: Receiver {
                transport,
                index,
                starving: false,
                hostile: 0,
            },
            counters: Arc::default(),
        }
    }

    #[cold]
    fn count(&self, lost: &Lost) {
        self.counters.invalid_descriptor.add(lost.invalid);
        self.counters.too_long.add(lost.too_long);
        self.counters.no_frames.add(lost.no_frames);
    }
}

impl<T: Transport> Receiver<T> {
    fn poll_ring<R: DriverRing>(
        &mut self,
        ring: &mut R,
        lent: &mut crate::frame::Lent,
        packets: &mut Packets,
        up: bool,
        batch: &mut Batch,
    ) -> Polled {
        let room = packets.room();
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
                polled.lost.invalid += 1;
                continue;
            };
            ring.free(used.id);
            let Some(frame) = packets.take(frame, used, batch.cache_mut(), &mut polled.lost) else {
                continue;
            };
            polled.frames += 1;
            polled.bytes += u64::from(frame.len());
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
        polled.lost.invalid += hostile - self.hostile.min(hostile);
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
            ring.add(self.transport.address(offset), bytes, WRITE);
            id
        });
        if got < missing {
            self.starving = true;
        }
        ring.publish();
        ring.wants_kick()
    }
}

#[derive(Default)]
struct Polled {
    frames: usize,
    bytes: u64,
    /// Buffers that the device gave back.
    used: usize,
    lost: Lost,
    kick: bool,
}

impl<T: Transport> RxQueue for Rx<T> {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let queue = &*self.queue;
        let mut half = queue.lock();
        let Half {
            live,
            up,
            arrived,
            lost,
            armed,
            ..
        } = &mut *half;
        self.state = self.ring.transport.state(*up);
        if self.state == State::Gone {
            return 0;
        }
        let mut before = 0;
        if !arrived.is_empty() || !lost.is_none() {
            self.count(&std::mem::take(lost));
            before = hand_over(arrived, batch, &self.counters);
        }
        let Some(Live {
            ring, lent, packets, ..
        }) = live
        else {
            return before;
        };
        let polled = match ring {
            AnyRing::Split(ring) => self.ring.poll_ring(ring, lent, packets, *up, batch),
            AnyRing::Packed(ring) => self.ring.poll_ring(ring, lent, packets, *up, batch),
        };
        if polled.kick {
            self.ring.transport.kick(self.ring.index);
        }
        if polled.used > 0 {
            if *armed {
                *armed = false;
                ring.as_dyn().disable_calls();
            }
            self.counters.received.add(polled.frames as u64);
            self.counters.received_bytes.add(polled.bytes);
        }
        if self.ring.starving {
            self.counters.no_frames.add(1);
        }
        // Also of a poll that got nothing: an index that cannot be is all that some devices have to say.
        if !polled.lost.is_none() {
            self.count(&polled.lost);
        }
        self.ring.transport.polled(polled.used == 0);
        before + polled.frames
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.transport.ready_fd(self.ring.index)
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.ring.transport.lower(self.ring.index);
        self.ring.transport.unmask();
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
        self.ring.starving
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
