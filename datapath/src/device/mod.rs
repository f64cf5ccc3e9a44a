//! Backends: each turns a queue of something into frames and frames into something sent.
//!
//! A device never imports another device; [`fault`], [`show`] and [`tap`] stack on any of them through the traits.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::frame::{Batch, Umem};

pub mod af_packet;
pub mod af_xdp;
pub mod cards;
pub mod counters;
pub mod e1000e;
pub mod fault;
pub mod igb;
pub mod igbvf;
pub mod left;
pub mod lend;
pub mod loopback;
mod observed;
pub mod pmd;
pub mod show;
pub mod tap;
pub mod verbs;
pub mod vhost;
pub mod virtio;

pub use counters::{Counters, QueueCounters, Totals};
pub use left::{LeftToCard, Mtu};

/// Whether the device behind a queue is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There, as far as is known.
    #[default]
    Up,
    /// There, and set down: nothing moves until it is set up again.
    Down,
    /// Deleted, or taken away: nothing will ever move again.
    Gone,
}

/// The receiving half of a queue. Owned by one thread at a time.
pub trait RxQueue: Send {
    /// Puts what has arrived into the batch, at most [`Batch::room`] frames; gives how many. Refills the
    /// device from the batch's cache. 0 also when the device is down or
    /// gone: [`RxQueue::state`] then says so.
    fn poll(&mut self, batch: &mut Batch) -> usize;

    /// A descriptor that becomes readable when something may have arrived. `None`: poll again at once.
    fn ready_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Says that the calling loop is about to wait for [`RxQueue::ready_fd`], for a device that has to be asked to raise
    /// it. False when something has arrived meanwhile: poll again instead.
    fn prepare_to_wait(&mut self) -> bool {
        true
    }

    /// What the last [`RxQueue::poll`] found of the device. A loop that sleeps wakes now and then (a second is
    /// enough) to poll: the kernel tells a sleeper of AF_XDP nothing when its device goes.
    fn state(&self) -> State {
        State::Up
    }

    /// Whether the device has fewer free frames than it should, since the pool had none at the last poll: no descriptor
    /// tells when there are some again, so whoever waits polls again soon.
    fn is_starving(&self) -> bool {
        false
    }

    /// What frames from this queue may lack, for the loop to make up for before it sends them. Asked once.
    fn left_to_card(&self) -> LeftToCard {
        LeftToCard::NOTHING
    }

    /// What this half has counted. Any thread may read them at any time.
    fn counters(&self) -> &Arc<Counters>;
}

/// The sending half of a queue. Owned by one thread at a time.
pub trait TxQueue: Send {
    /// Sends the frames that [`Batch::next_send`] gives, returns completed ones to the batch's cache, and
    /// rings the doorbell when it must; gives how many frames the device took. What finds no room is left in
    /// the batch or given back, and counted as `ring_full`.
    fn send(&mut self, batch: &mut Batch) -> usize;

    /// Whether frames that it took are not on their way yet, since the device had no room: no descriptor tells when it
    /// has, so whoever waits sends again soon, be it nothing.
    fn is_waiting(&self) -> bool {
        false
    }

    /// The largest packet that it sends; `None` when there is no limit but the frame.
    fn mtu(&self) -> Option<&Mtu> {
        None
    }

    /// What this half has counted. Any thread may read them at any time.
    fn counters(&self) -> &Arc<Counters>;
}

/// Both halves of one queue.
pub struct QueuePair {
    /// Its number on the device.
    pub index: u32,
    /// The receiving half.
    pub rx: Box<dyn RxQueue>,
    /// The sending half.
    pub tx: Box<dyn TxQueue>,
}

/// An opened device: its queues and the pool they share.
pub struct Port {
    /// The interface's name, or what the device is.
    pub name: String,
    /// Its queues, to be moved to the threads that poll them.
    pub queues: Vec<QueuePair>,
    /// The pool of all its queues.
    pub umem: Arc<Umem>,
}

impl Port {
    /// Handles to the counters of each queue, which stay readable when the queues have moved to threads.
    #[must_use]
    pub fn counters(&self) -> Vec<QueueCounters> {
        self.queues
            .iter()
            .map(|pair| QueueCounters {
                index: pair.index,
                rx: Arc::clone(pair.rx.counters()),
                tx: Arc::clone(pair.tx.counters()),
            })
            .collect()
    }
}
