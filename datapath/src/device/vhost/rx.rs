//! Receiving: what the driver sends, copied once out of its memory into frames of the port's own pool.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::device::{Counters, RxQueue, State};
use crate::frame::{Batch, Frame};
use crate::ring::virtio::{
    DeviceRing, Head, INDIRECT, NET_HEADER, NEXT, PIECES_MAX, Piece, WRITE, Window, copy_in, prefetch_read,
};

use crate::vhost_user::Service;

use super::queue::{AnyRing, Queue};

/// Buffers looked at together: their packets are fetched into the cache side by side.
const TOGETHER: usize = 32;

/// The receiving half of a queue: the driver's transmit ring.
pub(super) struct Rx {
    queue: Arc<Queue>,
    /// The connection lasts as long as a half of a queue does.
    _service: Arc<Service>,
    state: State,
    starving: bool,
    /// The driver gave no kick event: nothing wakes a sleeper.
    unkicked: bool,
    counters: Arc<Counters>,
}

impl Rx {
    pub(super) fn new(queue: &Arc<Queue>, service: &Arc<Service>) -> Rx {
        Rx {
            queue: Arc::clone(queue),
            _service: Arc::clone(service),
            state: State::Down,
            starving: false,
            unkicked: false,
            counters: Arc::default(),
        }
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let mut live = self.queue.lock();
        let Some(live) = live.as_mut().filter(|live| !live.broken) else {
            self.state = State::Down;
            return 0;
        };
        self.state = State::Up;
        self.unkicked = live.kick.is_none();
        let mut counts = Counts::default();
        let kept = match &mut live.ring {
            AnyRing::Split(ring) => receive(ring, &mut live.window, batch, &mut counts),
            AnyRing::Packed(ring) => receive(ring, &mut live.window, batch, &mut counts),
        };
        self.starving = counts.no_frames;
        if counts.used > 0 {
            let ring = live.ring.as_dyn();
            if live.armed {
                live.armed = false;
                ring.disable_kicks();
            }
            if ring.wants_call()
                && let Some(call) = &live.call
            {
                call.raise();
            }
            self.counters.received.add(counts.frames as u64);
            self.counters.received_bytes.add(counts.bytes);
            if counts.invalid + counts.too_long > 0 {
                self.counters.invalid_descriptor.add(counts.invalid);
                self.counters.too_long.add(counts.too_long);
            }
        }
        if counts.no_frames {
            self.counters.no_frames.add(1);
        }
        if !kept || live.memory.is_lost() {
            live.broken = true;
            self.counters.invalid_descriptor.add(1);
            self.queue.trouble.raise();
        }
        counts.frames
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.kicks.as_fd())
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.queue.kicks.lower();
        match self.queue.lock().as_mut() {
            Some(live) if !live.broken => {
                live.armed = true;
                live.ring.as_dyn().enable_kicks()
            }
            _ => true,
        }
    }

    fn state(&self) -> State {
        self.state
    }

    fn is_starving(&self) -> bool {
        self.starving || self.unkicked
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// What one poll did.
#[derive(Default)]
struct Counts {
    frames: usize,
    bytes: u64,
    used: usize,
    invalid: u64,
    too_long: u64,
    no_frames: bool,
}

/// Takes what is available. False when the driver broke the ring.
#[inline]
fn receive<R: DeviceRing>(ring: &mut R, window: &mut Window, batch: &mut Batch, counts: &mut Counts) -> bool {
    let mut heads = [Head::default(); TOGETHER];
    let mut kept = true;
    loop {
        let want = batch.room().min(TOGETHER);
        if want == 0 {
            break;
        }
        let Ok(got) = ring.look(&mut heads[..want]) else {
            kept = false;
            break;
        };
        let mut places = [std::ptr::null::<u8>(); TOGETHER];
        for (head, place) in heads[..got].iter().zip(&mut places) {
            *place = simple(head, window);
            prefetch_read(place.wrapping_add(NET_HEADER as usize));
        }
        for (head, &place) in heads[..got].iter().zip(&places) {
            let done = if place.is_null() {
                gather(ring, head, window, batch, counts)
            } else {
                take(head, place, batch, counts)
            };
            if !done {
                counts.no_frames = true;
                break;
            }
            ring.complete(head, 0);
            counts.used += 1;
        }
        if got < want || counts.no_frames {
            break;
        }
    }
    ring.publish();
    kept
}

/// Where a packet is that lies in one piece, header before it. Null for any other, and for what is nowhere.
#[inline(always)]
fn simple(head: &Head, window: &mut Window) -> *const u8 {
    if head.flags & (NEXT | INDIRECT | WRITE) == 0 && head.len > NET_HEADER {
        window
            .at(head.addr, head.len)
            .map_or(std::ptr::null(), <*mut u8>::cast_const)
    } else {
        std::ptr::null()
    }
}

/// Copies a packet that lies in one piece. False when there is no free frame.
#[inline(always)]
fn take(head: &Head, place: *const u8, batch: &mut Batch, counts: &mut Counts) -> bool {
    let len = head.len - NET_HEADER;
    let cache = batch.cache_mut();
    let Some(mut frame) = cache.take_coloured(len) else {
        return take_long(len, place, batch, counts);
    };
    // SAFETY: `simple` found `head.len` bytes at `place`, mapped as long as the window lives.
    unsafe { copy_in(place.add(NET_HEADER as usize), cache.bytes_mut(&mut frame)) };
    push(frame, batch, counts);
    true
}

#[cold]
fn take_long(len: u32, place: *const u8, batch: &mut Batch, counts: &mut Counts) -> bool {
    let cache = batch.cache_mut();
    if len as usize > cache.largest() {
        counts.too_long += 1;
        return true;
    }
    let Some(mut frame) = cache.take_for(len as usize) else {
        return false;
    };
    cache.set_len(&mut frame, len as usize);
    // SAFETY: as in `take`.
    unsafe { copy_in(place.add(NET_HEADER as usize), cache.bytes_mut(&mut frame)) };
    push(frame, batch, counts);
    true
}

#[inline(always)]
fn push(frame: Frame, batch: &mut Batch, counts: &mut Counts) {
    let len = frame.len();
    match batch.push(frame) {
        Ok(()) => {
            counts.frames += 1;
            counts.bytes += u64::from(len);
        }
        Err(frame) => batch.cache_mut().give(frame),
    }
}

/// Copies a packet that lies in several pieces. False when there is no free frame; a malformed one is counted.
#[cold]
fn gather<R: DeviceRing>(
    ring: &R,
    head: &Head,
    window: &mut Window,
    batch: &mut Batch,
    counts: &mut Counts,
) -> bool {
    let mut pieces = [Piece::default(); PIECES_MAX];
    let Some(count) = ring.pieces(head, window, &mut pieces) else {
        counts.invalid += 1;
        return true;
    };
    let pieces = &pieces[..count];
    let total: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    // The pieces of a packed ring's table are read whatever it says: DPDK's driver (22.11,
    // vring_desc_init_indirect_packed) leaves the header marked as one that the device writes, and at times a part of the
    // packet.
    let packed_table = ring.is_packed() && head.flags & INDIRECT != 0;
    let to_write = !packed_table && pieces.iter().any(|piece| piece.write);
    if total <= u64::from(NET_HEADER) || to_write {
        counts.invalid += 1;
        return true;
    }
    let cache = batch.cache_mut();
    let len = total - u64::from(NET_HEADER);
    if len > cache.largest() as u64 {
        counts.too_long += 1;
        return true;
    }
    let Some(mut frame) = cache.take_for(len as usize) else {
        return false;
    };
    cache.set_len(&mut frame, len as usize);
    let mut skip = NET_HEADER;
    let mut filled = 0;
    for piece in pieces {
        let Some(place) = window.at(piece.addr, piece.len) else {
            counts.invalid += 1;
            cache.give(frame);
            return true;
        };
        let skipped = skip.min(piece.len);
        skip -= skipped;
        let part = (piece.len - skipped) as usize;
        let to = &mut cache.bytes_mut(&mut frame)[filled..filled + part];
        // SAFETY: the window found `piece.len` bytes at `place`, of which `skipped` are left out.
        unsafe { copy_in(place.add(skipped as usize), to) };
        filled += part;
    }
    push(frame, batch, counts);
    true
}
