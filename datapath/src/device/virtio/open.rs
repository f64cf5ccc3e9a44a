//! Opening the driver: a pool and rings that the device maps, a connection, queues for the loops.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bifurcate_linux::dma::DmaTable;
use bifurcate_linux::event::{EventFd, Interest};
use bifurcate_linux::guard::Guard;
use bifurcate_linux::memory::{Mapping, MemoryFile, PageKind};
use bifurcate_linux::stream::Stream;
use bifurcate_linux::{Error, Result};

use crate::device::{Port, QueuePair, State};
use crate::frame::{Cache, Umem};
use crate::ring::virtio::{Places, SIZE_MAX, feature};
use crate::vhost_user::{Inner, Link, MESSAGES_A_LOOK, Service, Source};

use super::queue::Queue;
use super::rings::{RingAt, RingMemory};
use super::rx::Rx;
use super::session::{FEATURES, PATIENCE, begin};
use super::transport::Transport;
use super::tx::Tx;

const EINVAL: i32 = 22;

/// Most queue pairs: a ring's number has eight bits.
const PAIRS_MAX: u32 = 127;

/// How long [`open`] waits for the first device to take everything: a little longer than the device may take for it.
const FIRST: Duration = PATIENCE.saturating_add(Duration::from_secs(2));

/// How to open the driver.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket.
    pub path: PathBuf,
    /// Listen there for a device; otherwise connect to one that listens.
    pub server: bool,
    /// Number of queue pairs.
    pub queues: u32,
    /// Slots of a ring: a power of two, 32,768 at most.
    pub ring_size: u16,
    /// Virtio features not to use, of those that the driver can. The packed layout is among them at first: both ends
    /// write every line of it, where a split ring's descriptors stay as they are; it was the slower one where it was
    /// measured.
    pub without: u64,
    /// Virtio features that the device must offer, or it is refused.
    pub require: u64,
}

impl Config {
    /// Connects to a device that listens at `path`; one queue pair, split rings of 256.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Config {
        Config {
            path: path.into(),
            server: false,
            queues: 1,
            ring_size: 256,
            without: feature::RING_PACKED,
            require: 0,
        }
    }
}

/// An opened driver.
pub struct Opened {
    /// Its queues.
    pub port: Port,
    /// How its connection is.
    pub status: Arc<Inner>,
}

/// Where the frame pool is, as the device is told: not where it is mapped here, which is nobody's business.
pub(super) const POOL_AT: u64 = 1 << 32;

/// Where the rings are, as the device is told.
pub(super) const RINGS_AT: u64 = 1 << 40;

/// How the two ends of a ring wake each other.
pub(super) struct Events {
    /// Raised by the device when it has used something.
    pub(super) call: EventFd,
    /// Raised for the device when something is available.
    pub(super) kick: EventFd,
}

impl Events {
    fn new() -> Result<Events> {
        Ok(Events {
            call: EventFd::to_share()?,
            kick: EventFd::to_share()?,
        })
    }
}

/// What all queues and the connection's thread share. Dropped with the last of them.
pub(super) struct Shared {
    /// Before the pool's mapping, which it guards.
    guard: Guard,
    rings_guard: Guard,
    umem: Arc<Umem>,
    rings: RingMemory,
    rings_file: MemoryFile,
    pub(super) queues: Vec<Arc<Queue>>,
    /// By the number of the ring, as `queues`.
    pub(super) events: Vec<Events>,
    config: Config,
    /// The pool or the rings vanished: nothing moves any more.
    gone: AtomicBool,
    /// Raised when they do.
    trouble: EventFd,
    first: Mutex<Option<Result<()>>>,
    tried: Condvar,
}

impl Shared {
    fn new(config: &Config, umem: &Arc<Umem>) -> Result<Arc<Shared>> {
        let stride = RingMemory::bytes(config.ring_size).next_multiple_of(4096);
        let rings_file = MemoryFile::create(
            "bifurcate-rings",
            stride * 2 * config.queues as usize,
            PageKind::Ordinary,
        )?;
        let rings = Arc::new(Mapping::shared(&rings_file)?);
        let trouble = EventFd::new()?;
        let numbers = 0..2 * config.queues;
        let queues = numbers.clone().map(|_| Queue::new(config.ring_size)).collect();
        let events = numbers.map(|_| Events::new()).collect::<Result<Vec<_>>>()?;
        let at = Arc::new(DmaTable::contiguous(RINGS_AT, rings.len()));
        Ok(Arc::new(Shared {
            guard: Guard::new(umem.mapping(), Some(&trouble))?,
            rings_guard: Guard::new(&rings, Some(&trouble))?,
            umem: Arc::clone(umem),
            rings: RingMemory::new(rings, at, 0, config.ring_size, stride),
            rings_file,
            queues,
            events,
            config: config.clone(),
            gone: AtomicBool::new(false),
            trouble,
            first: Mutex::default(),
            tried: Condvar::new(),
        }))
    }

    pub(super) fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    pub(super) fn pairs(&self) -> usize {
        self.queues.len() / 2
    }

    pub(super) fn required(&self) -> u64 {
        self.config.require
    }

    /// Features to use where the device has them.
    pub(super) fn wanted(&self) -> u64 {
        let merging = if self.umem.jumbo_frames() > 0 {
            0
        } else {
            feature::MRG_RXBUF
        };
        FEATURES & !self.config.without & !merging | self.config.require
    }

    pub(super) fn rings_file(&self) -> (BorrowedFd<'_>, usize) {
        (self.rings_file.as_fd(), self.rings_file.len())
    }

    /// Whether the memory is still there, and somebody at the other end.
    #[inline]
    pub(super) fn state(&self, up: bool) -> State {
        if self.guard.is_lost() || self.rings_guard.is_lost() || self.gone.load(Ordering::Relaxed) {
            State::Gone
        } else if up {
            State::Up
        } else {
            State::Down
        }
    }

    /// Ring `index` in memory here, and where the device finds it.
    pub(super) fn places(&self, index: usize, packed: bool) -> (Places, RingAt) {
        self.rings.places(index, packed)
    }

    /// A device has every ring.
    fn up(&self) {
        for (queue, events) in self.queues.iter().zip(&self.events) {
            queue.set_up(true);
            events.call.raise();
            events.kick.raise();
        }
    }

    /// The device is gone: nothing is added any more. What it had used is still there.
    fn down(&self) {
        for (queue, events) in self.queues.iter().zip(&self.events) {
            queue.set_up(false);
            events.call.raise();
        }
    }

    fn tried(&self, outcome: Result<()>) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(outcome);
            self.tried.notify_all();
        }
    }

    /// Waits until the first device has everything, or refused.
    fn wait_for_first(&self) -> Result<()> {
        let deadline = Instant::now() + FIRST;
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &*first {
                return outcome.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new("vhost-user", "the device did not answer", 110));
            }
            first = self
                .tried
                .wait_timeout(first, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Serves one connection to its end.
    fn serve(&self, link: Link, inner: &Inner) -> Result<()> {
        let served = self.converse(link, inner);
        self.down();
        self.tried(served.clone());
        served
    }

    fn converse(&self, mut link: Link, inner: &Inner) -> Result<()> {
        let features = begin(&mut link, self)?;
        inner.set_features(features);
        self.up();
        self.tried(Ok(()));
        loop {
            // The device has nothing to say; what it says all the same is read and let be.
            for _ in 0..MESSAGES_A_LOOK {
                if link.receive()?.is_none() {
                    break;
                }
            }
            let fds = [
                (link.as_fd(), Interest::Read),
                (self.trouble.as_fd(), Interest::Read),
            ];
            inner.wait(&fds, None)?;
            if inner.is_stopped() {
                return Ok(());
            }
            if self.guard.is_lost() || self.rings_guard.is_lost() {
                self.gone.store(true, Ordering::Relaxed);
                inner.end();
                let what = "the memory shared with the device vanished: it punched a hole into it";
                return Err(Error::new("vhost-user", what, 71));
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The connection has ended: who follows the protocol touches nothing any more, and whoever does not can write
        // into frames that are free, as it could all the time.
        let mut cache = Cache::new(&self.umem);
        for queue in &self.queues {
            queue
                .lock()
                .take_all(&mut cache)
                .into_iter()
                .for_each(|frame| cache.give(frame));
        }
    }
}

/// A connection, for as long as a half of a queue holds it.
#[derive(Clone)]
struct Attached {
    /// Before what it shares, so that it has ended by then.
    _service: Arc<Service>,
    shared: Arc<Shared>,
}

impl Transport for Attached {
    #[inline]
    fn reach(&self) -> u32 {
        u32::MAX
    }

    #[inline]
    fn address(&self, offset: u32) -> u64 {
        POOL_AT + u64::from(offset)
    }

    fn indirect(&self, index: usize, packed: bool, id: u16, addr: u64, len: u32) -> (u64, u32) {
        self.shared.rings.indirect(index, packed, id, addr, len)
    }

    #[inline]
    fn kick(&self, index: usize) {
        self.shared.events[index].kick.raise();
    }

    fn ready_fd(&self, index: usize) -> Option<BorrowedFd<'_>> {
        Some(self.shared.events[index].call.as_fd())
    }

    fn lower(&self, index: usize) {
        self.shared.events[index].call.lower();
    }

    #[inline]
    fn state(&self, up: bool) -> State {
        self.shared.state(up)
    }
}

/// Opens the driver. A client needs its device to be there, and connects again when that goes; a server waits for
/// devices, one after another.
///
/// # Errors
/// `EINVAL` for no queues or more than 127, for a ring that is no power of two, or for a pool too small for the rings;
/// `EADDRINUSE`, `ENOENT`, `ECONNREFUSED` as the socket gives them; `EOPNOTSUPP` when the device lacks a feature or
/// queues that were asked for; `ETIMEDOUT` when it does not answer.
pub fn open(config: &Config, umem: &Arc<Umem>) -> Result<Opened> {
    check(config, umem)?;
    let source = Source::at(&config.path, config.server)?;
    start(config, source, !config.server, umem)
}

/// As [`open`], over a connection that is there.
///
/// # Errors
/// As [`open`].
pub fn attach(stream: Stream, config: &Config, umem: &Arc<Umem>) -> Result<Opened> {
    check(config, umem)?;
    start(config, Source::One(Some(stream)), true, umem)
}

fn check(config: &Config, umem: &Arc<Umem>) -> Result<()> {
    let invalid = |why: String| Err(Error::new("virtio", why, EINVAL));
    if !(1..=PAIRS_MAX).contains(&config.queues) {
        return invalid(format!("{} queues; 1 to {PAIRS_MAX} can be", config.queues));
    }
    if !config.ring_size.is_power_of_two() || config.ring_size > SIZE_MAX {
        return invalid(format!(
            "rings of {} slots; a power of two can be",
            config.ring_size
        ));
    }
    let least = 2 * config.queues * u32::from(config.ring_size);
    if umem.frames() < least {
        let frames = umem.frames();
        return invalid(format!("a pool of {frames} frames; the rings alone hold {least}"));
    }
    Ok(())
}

fn start(config: &Config, source: Source, wait: bool, umem: &Arc<Umem>) -> Result<Opened> {
    let shared = Shared::new(config, umem)?;
    let theirs = Arc::clone(&shared);
    let service = Service::start("bf-virtio", source, move |link, inner| theirs.serve(link, inner))?;
    if wait {
        shared.wait_for_first()?;
    }
    let status = Arc::clone(service.inner());
    let attached = Attached {
        _service: Arc::new(service),
        shared: Arc::clone(&shared),
    };
    let queues = shared
        .queues
        .chunks(2)
        .enumerate()
        .map(|(index, pair)| QueuePair {
            index: index as u32,
            // Ring 0 of a pair receives, ring 1 sends (VIRTIO 1.2, section 5.1.2).
            rx: Box::new(Rx::new(&pair[0], attached.clone(), 2 * index)),
            tx: Box::new(Tx::new(&pair[1], attached.clone(), 2 * index + 1)),
        })
        .collect();
    Ok(Opened {
        port: Port {
            name: config.path.display().to_string(),
            queues,
            umem: Arc::clone(umem),
        },
        status,
    })
}
