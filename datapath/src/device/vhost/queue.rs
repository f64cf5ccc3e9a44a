//! A ring as the thread that polls it and the thread that serves the socket share it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bifurcate_linux::Result;
use bifurcate_linux::event::{EventFd, EventSet};

use crate::ring::virtio::{DeviceRing, PackedDevice, SplitDevice, Window};

use super::memory::Memory;

/// A ring that runs: the driver has given everything for it.
pub(super) struct Live {
    pub(super) ring: AnyRing,
    pub(super) window: Window,
    /// The driver takes packets that lie in several of its receive buffers (VIRTIO_NET_F_MRG_RXBUF).
    pub(super) merges: bool,
    /// Keeps the driver's memory mapped, and knows when it vanished.
    pub(super) memory: Arc<Memory>,
    /// How the driver is told that something was used; `None` when it asked for no notification ever.
    pub(super) call: Option<EventFd>,
    /// How the driver tells that something is available: in the queue's set while it is live.
    pub(super) kick: Option<EventFd>,
    /// The driver wrote what cannot be: nothing moves until it is set up anew.
    pub(super) broken: bool,
    /// The driver was asked for kicks, since the loop was about to sleep.
    pub(super) armed: bool,
}

/// A ring of either layout. Polls choose once a batch.
pub(super) enum AnyRing {
    Split(SplitDevice),
    Packed(PackedDevice),
}

impl AnyRing {
    pub(super) fn as_dyn(&mut self) -> &mut dyn DeviceRing {
        match self {
            AnyRing::Split(ring) => ring,
            AnyRing::Packed(ring) => ring,
        }
    }
}

/// One ring of the port. Locked once a batch by the thread that polls it, and by the socket's thread when the driver
/// starts or stops it.
pub(super) struct Queue {
    live: Mutex<Option<Live>>,
    /// Whether there is one, for whoever asks without the lock.
    runs: AtomicBool,
    /// Readable when the driver may have made something available.
    pub(super) kicks: EventSet,
    /// Raised when the ring comes or goes, so that a sleeper looks.
    pub(super) changed: EventFd,
    /// Tells the socket's thread that the driver broke the ring or its memory vanished.
    pub(super) trouble: EventFd,
}

impl Queue {
    pub(super) fn new(trouble: &EventFd) -> Result<Arc<Queue>> {
        let queue = Queue {
            live: Mutex::new(None),
            runs: AtomicBool::new(false),
            kicks: EventSet::new()?,
            changed: EventFd::new()?,
            trouble: trouble.duplicate()?,
        };
        queue.kicks.add(&queue.changed)?;
        Ok(Arc::new(queue))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        // A panic within a poll leaves cursors that are the ring's own: the driver sees at most a buffer unused.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the driver has started the ring; by the time that it is locked it may have stopped it.
    pub(super) fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// Lets a ring run.
    pub(super) fn start(&self, live: Live) {
        if let Some(kick) = &live.kick {
            // Twice the same event, or no memory: the loop then finds the frames when it next looks.
            let _ = self.kicks.add(kick);
        }
        *self.lock() = Some(live);
        self.runs.store(true, Ordering::Relaxed);
        self.changed.raise();
    }

    /// Stops the ring: once this returns no thread touches it or its memory. Gives where it stood.
    pub(super) fn stop(&self) -> Option<u32> {
        self.runs.store(false, Ordering::Relaxed);
        let live = self.lock().take()?;
        if let Some(kick) = &live.kick {
            self.kicks.remove(kick);
        }
        self.changed.raise();
        let mut ring = live.ring;
        Some(ring.as_dyn().base())
    }
}
