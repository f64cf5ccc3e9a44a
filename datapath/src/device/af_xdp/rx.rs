//! Receiving: descriptors from the rx ring become frames of the batch, free frames go into the fill ring.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_linux::memory::Mapping;
use bifurcate_linux::xsk::{CONTINUED, NEED_WAKEUP, Statistics};

use super::metadata;
use super::socket::{QueueSocket, Watch};
use crate::device::{Counters, LeftToCard, RxQueue, State};
use crate::frame::{Batch, Cache, Frame, Metadata, Owner, Umem};
use crate::ring::{Consumer, Descriptor, Mapped, Producer};

/// How often the kernel is asked for its counters and whether the device is there.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Busy queues look at the clock once in this many polls.
const POLLS_PER_CLOCK: u32 = 64;

/// Free frames are put into the fill ring this many at a time.
const FILL_BUNDLE: u32 = 32;

/// The receiving half of an AF_XDP queue.
pub(super) struct Rx {
    socket: Arc<QueueSocket>,
    rx: Consumer<Mapped<Descriptor, Mapping>>,
    fill: Producer<Mapped<u64, Mapping>>,
    /// `None` only while being dropped.
    owner: Option<Owner>,
    settings: Settings,
    partial: Option<Partial>,
    /// The pool had too few frames for the fill ring at the last poll.
    starving: bool,
    counters: Arc<Counters>,
    seen: Statistics,
    hostile: u64,
    polls: u32,
    last_look: Instant,
}

/// What is the same for as long as the queue is open.
pub(super) struct Settings {
    /// Frames that the kernel should have: in the fill ring, in its hands, in the rx ring.
    pub(super) target: u32,
    pub(super) busy_poll: bool,
    pub(super) multi_buffer: bool,
    /// The XDP program leaves what the driver says of a frame in front of it.
    pub(super) metadata: bool,
    pub(super) left: LeftToCard,
    pub(super) watch: Arc<Watch>,
}

impl Settings {
    /// What the driver says of a frame that has just arrived.
    #[inline]
    fn said_of(&self, umem: &Umem, frame: &Frame) -> Option<Metadata> {
        if self.metadata {
            metadata::take(umem, frame)
        } else {
            None
        }
    }
}

/// Puts a frame into the batch; false, and the frame is back in the pool, when it has no room.
#[inline]
fn put(batch: &mut Batch, frame: Frame, said: Option<Metadata>) -> bool {
    let put = match said {
        Some(said) => batch.push_with(frame, said),
        None => batch.push(frame),
    };
    put.map_err(|frame| batch.cache_mut().give(frame)).is_ok()
}

/// A frame of which more descriptors are to come.
enum Partial {
    /// Gathered so far, in a jumbo frame, and what was said of it in front of its first piece.
    Gathering(Frame, Option<Metadata>),
    /// Lost already; its remaining descriptors go back to the pool.
    Lost,
}

impl Rx {
    pub(super) fn new(
        socket: &Arc<QueueSocket>,
        rx: Consumer<Mapped<Descriptor, Mapping>>,
        fill: Producer<Mapped<u64, Mapping>>,
        owner: Owner,
        settings: Settings,
    ) -> Rx {
        Rx {
            socket: Arc::clone(socket),
            rx,
            fill,
            owner: Some(owner),
            settings,
            partial: None,
            starving: false,
            counters: Arc::default(),
            seen: Statistics::default(),
            hostile: 0,
            polls: 0,
            last_look: Instant::now(),
        }
    }

    /// Puts free frames into the fill ring until the kernel has as many as it should; gives how many those were.
    fn refill(&mut self, batch: &mut Batch) -> u32 {
        let Some(owner) = &mut self.owner else { return 0 };
        let missing = self.settings.target.saturating_sub(owner.lent());
        if missing < FILL_BUNDLE.min(self.settings.target) {
            return 0;
        }
        self.starving = false;
        let room = self.fill.free(missing);
        let cache = batch.cache_mut();
        for _ in 0..missing.min(room) {
            let Some(frame) = cache.take() else {
                self.counters.no_frames.add(1);
                self.starving = true;
                break;
            };
            match owner.lend(frame) {
                Ok(address) => {
                    self.fill.push(address);
                }
                Err(frame) => cache.give(frame),
            }
        }
        self.fill.publish()
    }

    /// Wakes a driver that sleeps for want of free frames.
    fn wake_if_asked(&self) {
        if self.fill.flags() & NEED_WAKEUP != 0 {
            self.socket.note(self.socket.xsk().wake_rx());
        }
    }

    /// Gathers one descriptor of a frame that has several. True when a whole frame went into the batch.
    #[cold]
    fn gather(&mut self, piece: Option<Frame>, last: bool, batch: &mut Batch) -> bool {
        let partial = match (self.partial.take(), piece) {
            (so_far, None) => {
                if let Some(Partial::Gathering(frame, _)) = so_far {
                    batch.cache_mut().give(frame);
                }
                Partial::Lost
            }
            (Some(Partial::Lost), Some(piece)) => {
                batch.cache_mut().give(piece);
                Partial::Lost
            }
            (so_far, Some(piece)) => {
                let cache = batch.cache_mut();
                let (whole, said) = match so_far {
                    Some(Partial::Gathering(frame, said)) => (Some(frame), said),
                    // What was said stands in front of the first piece.
                    _ => (cache.take_jumbo(), self.settings.said_of(cache.umem(), &piece)),
                };
                let partial = match whole {
                    None => {
                        self.counters.no_frames.add(1);
                        Partial::Lost
                    }
                    Some(mut whole) => {
                        if cache.append(&mut whole, cache.bytes(&piece)) {
                            Partial::Gathering(whole, said)
                        } else {
                            self.counters.too_long.add(1);
                            cache.give(whole);
                            Partial::Lost
                        }
                    }
                };
                cache.give(piece);
                partial
            }
        };
        match (partial, last) {
            (Partial::Gathering(frame, said), true) => {
                self.counters.received_bytes.add(frame.len().into());
                put(batch, frame, said)
            }
            (Partial::Lost, true) => false,
            (partial, false) => {
                self.partial = Some(partial);
                false
            }
        }
    }

    /// Adds what the kernel counted since the last time, and learns whether the device is there.
    #[cold]
    fn housekeeping(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.last_look) < HOUSEKEEPING {
            return;
        }
        self.last_look = now;
        self.settings.watch.look();
        if !self.settings.busy_poll {
            self.socket.check();
        }
        self.count_losses();
    }

    fn count_losses(&mut self) {
        let Ok(now) = self.socket.statistics() else { return };
        let since = |new: u64, old: u64| new.wrapping_sub(old);
        let dropped = since(now.rx_dropped, self.seen.rx_dropped);
        // The kernel has one counter for "no free frame" and "longer than a chunk"; the second cannot happen
        // with multi-buffer, and the first is also counted as an empty fill ring.
        let empty = since(now.rx_fill_ring_empty_descs, self.seen.rx_fill_ring_empty_descs);
        let no_frames = if self.settings.multi_buffer {
            dropped
        } else {
            dropped.min(empty)
        };
        self.counters.no_frames.add(no_frames);
        self.counters.too_long.add(dropped - no_frames);
        self.counters
            .ring_full
            .add(since(now.rx_ring_full, self.seen.rx_ring_full));
        self.counters
            .invalid_descriptor
            .add(since(now.rx_invalid_descs, self.seen.rx_invalid_descs));
        self.seen = now;
        let hostile = self.rx.hostile() + self.fill.hostile();
        self.counters.invalid_descriptor.add(hostile - self.hostile);
        self.hostile = hostile;
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let want = batch.room() as u32;
        let available = self.rx.available(want).min(want);
        if available == 0 {
            if self.settings.busy_poll {
                self.socket.note(self.socket.xsk().wake_rx());
            }
            self.housekeeping();
            // Whoever never sleeps in poll(2), which would wake the driver, relies on this.
            if self.refill(batch) > 0 {
                self.wake_if_asked();
            }
            return 0;
        }
        let Some(owner) = &mut self.owner else { return 0 };
        let (mut frames, mut bytes) = (0u64, 0u64);
        let mut rest = available;
        while rest > 0 && self.partial.is_none() {
            let Some(got) = self.rx.pop() else { break };
            rest -= 1;
            let frame = owner.reclaim(got.addr, got.len);
            if got.options & CONTINUED != 0 {
                if frame.is_none() {
                    self.counters.invalid_descriptor.add(1);
                }
                self.gather(frame, false, batch);
                break;
            }
            match frame {
                Some(frame) => {
                    frames += 1;
                    bytes += u64::from(frame.len());
                    let said = self.settings.said_of(owner.umem(), &frame);
                    put(batch, frame, said);
                }
                None => self.counters.invalid_descriptor.add(1),
            }
        }
        if rest > 0 {
            frames += self.poll_pieces(rest, batch);
        }
        self.rx.release();
        self.counters.received.add(frames);
        self.counters.received_bytes.add(bytes);
        self.refill(batch);
        self.wake_if_asked();
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS_PER_CLOCK) {
            self.housekeeping();
        }
        frames as usize
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn state(&self) -> State {
        self.socket.state()
    }

    fn is_starving(&self) -> bool {
        self.starving
    }

    fn left_to_card(&self) -> LeftToCard {
        self.settings.left
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Rx {
    /// Goes on with `rest` descriptors, some of which are pieces of longer frames; gives how many frames.
    #[cold]
    fn poll_pieces(&mut self, rest: u32, batch: &mut Batch) -> u64 {
        let mut frames = 0;
        for _ in 0..rest {
            let Some(got) = self.rx.pop() else { break };
            let frame = self
                .owner
                .as_mut()
                .and_then(|owner| owner.reclaim(got.addr, got.len));
            if frame.is_none() {
                self.counters.invalid_descriptor.add(1);
            }
            let last = got.options & CONTINUED == 0;
            if self.partial.is_some() || !last {
                frames += u64::from(self.gather(frame, last, batch));
            } else if let Some(frame) = frame {
                frames += 1;
                self.counters.received_bytes.add(frame.len().into());
                let said = self.settings.said_of(batch.cache().umem(), &frame);
                put(batch, frame, said);
            }
        }
        frames
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.count_losses();
        if let Some(owner) = self.owner.take() {
            if let Some(Partial::Gathering(frame, _)) = self.partial.take() {
                Cache::new(owner.umem()).give(frame);
            }
            self.socket.adopt(owner);
        }
    }
}
