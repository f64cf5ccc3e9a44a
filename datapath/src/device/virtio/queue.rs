//! A ring as the thread that polls it and the thread that has the connection share it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::{Cache, Frame, Lent, Umem};
use crate::ring::virtio::{DriverRing, NET_HEADER, Options, PackedDriver, Places, SplitDriver, feature};

use super::packets::{Lost, Packets};

/// A ring of either layout. Polls choose once a batch.
pub(super) enum AnyRing {
    Split(SplitDriver),
    Packed(PackedDriver),
}

impl AnyRing {
    pub(super) fn new(places: Places, features: u64) -> AnyRing {
        let options = Options::of(features);
        if features & feature::RING_PACKED != 0 {
            AnyRing::Packed(PackedDriver::new(places, options))
        } else {
            AnyRing::Split(SplitDriver::new(places, options))
        }
    }

    pub(super) fn as_dyn(&mut self) -> &mut dyn DriverRing {
        match self {
            AnyRing::Split(ring) => ring,
            AnyRing::Packed(ring) => ring,
        }
    }
}

/// A ring with what the device holds of it.
pub(super) struct Live {
    pub(super) ring: AnyRing,
    pub(super) lent: Lent,
    /// For a ring that receives.
    pub(super) packets: Packets,
    pub(super) features: u64,
}

/// What is behind the lock of a ring.
pub(super) struct Half {
    /// The ring of the connection there is, or was: its memory is the driver's own, so that what the device had used
    /// before it died can still be taken out of it.
    pub(super) live: Option<Live>,
    /// Whether a device is there.
    pub(super) up: bool,
    /// Frames for the device that it has not taken yet, oldest first, while no device is there.
    pub(super) waiting: VecDeque<Frame>,
    /// Received packets out of a ring that is no more, and what was lost of it: to be counted.
    pub(super) arrived: VecDeque<Frame>,
    pub(super) lost: Lost,
    /// The device was asked for calls, since the loop was about to sleep.
    pub(super) armed: bool,
}

/// One ring of the port.
pub(super) struct Queue {
    half: Mutex<Half>,
    /// Slots.
    pub(super) size: u16,
}

impl Queue {
    pub(super) fn new(size: u16) -> Arc<Queue> {
        Arc::new(Queue {
            half: Mutex::new(Half {
                live: None,
                up: false,
                waiting: VecDeque::with_capacity(usize::from(size)),
                arrived: VecDeque::new(),
                lost: Lost::default(),
                armed: false,
            }),
            size,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Half> {
        // A panic within a poll leaves the table of lent frames and the ring's cursors in step or a frame lent for ever.
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new ring in the place of the one there was. Received packets that nobody has taken yet are kept, and so
    /// are frames to be sent that the device had not used: they go into the new ring when it is sent by. `ring` makes the
    /// new one, in the same memory: not before the old one was looked through.
    pub(super) fn renew(
        &self,
        ring: impl FnOnce() -> AnyRing,
        features: u64,
        umem: &Arc<Umem>,
        receives: bool,
    ) {
        let mut half = self.lock();
        let half = &mut *half;
        if let Some(mut live) = half.live.take() {
            if receives {
                half.take_received(&mut live);
            } else {
                half.take_unsent(&mut live);
            }
        }
        half.live = Some(Live {
            ring: ring(),
            lent: Lent::new(umem, self.size),
            packets: Packets::new(umem, features),
            features,
        });
        half.armed = false;
    }

    /// A device is there and has the ring, or not any more.
    pub(super) fn set_up(&self, up: bool) {
        self.lock().up = up;
    }
}

impl Half {
    /// Every frame that is here or with the device, for when it is free or can reach none of them any more.
    pub(super) fn take_all(&mut self, cache: &mut Cache) -> Vec<Frame> {
        let mut all: Vec<Frame> = self.waiting.drain(..).chain(self.arrived.drain(..)).collect();
        if let Some(mut live) = self.live.take() {
            live.packets.end(cache, &mut self.lost);
            all.extend(live.lent.drain().map(|(_, frame)| frame));
        }
        all
    }

    /// Takes the received packets that the device had finished out of a ring that is no more. What it had not finished is
    /// lost, and counted.
    fn take_received(&mut self, live: &mut Live) {
        let mut cache = Cache::new(&live.lent.umem().clone());
        let ring = live.ring.as_dyn();
        while let Some(used) = ring.pop_used() {
            let Some(frame) = live.lent.reclaim(used.id, used.len.wrapping_sub(NET_HEADER)) else {
                self.lost.invalid += 1;
                continue;
            };
            ring.free(used.id);
            let packet = live.packets.take(frame, used, &mut cache, &mut self.lost);
            self.arrived.extend(packet);
        }
        live.packets.end(&mut cache, &mut self.lost);
        for (_, frame) in live.lent.drain() {
            cache.give(frame);
        }
    }

    /// Takes the frames that the device had not sent out of a ring that is no more.
    fn take_unsent(&mut self, live: &mut Live) {
        let mut cache = Cache::new(&live.lent.umem().clone());
        let ring = live.ring.as_dyn();
        while let Some(used) = ring.pop_used() {
            if let Some(frame) = live.lent.reclaim(used.id, 0) {
                ring.free(used.id);
                cache.give(frame);
            }
        }
        // Ids are given out in turn, so that the next one is the oldest of those that the device still has.
        let (first, size) = (ring.next_id(), ring.size());
        let mut left: Vec<_> = live.lent.drain().collect();
        left.sort_by_key(|(id, _)| (u32::from(*id) + u32::from(size) - u32::from(first)) % u32::from(size));
        // From the newest on, each before the one that follows it: all of them were sent before those that wait already.
        for (_, frame) in left.into_iter().rev() {
            self.waiting.push_front(frame);
        }
    }
}
