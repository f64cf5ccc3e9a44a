//! A queue pair of a card, through rdma-core.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bifurcate_linux::Result;
use bifurcate_linux::verbs::{
    Completions, Destination, Event, Flow, MemoryRegion, QueuePair, Receives, Sends,
};

use super::pair::{Pair, Peer, Side};

/// The queue pair of a queue with all that is its own. Dropped in this order.
#[derive(Debug)]
pub(super) struct CardPair {
    /// What brings raw packets to it.
    pub(super) _flows: Vec<Flow>,
    pub(super) queue_pair: Arc<QueuePair>,
    /// The pool, for the card.
    pub(super) _region: Arc<MemoryRegion>,
}

impl Pair for CardPair {
    #[inline]
    fn poll(&self, side: Side, into: &mut Completions) -> Result<usize> {
        match side {
            Side::Receive => self.queue_pair.received.poll(into),
            Side::Send => self.queue_pair.sent.poll(into),
        }
    }

    #[inline]
    fn post_receives(&self, list: &mut Receives) -> (usize, Result<()>) {
        self.queue_pair.post_receives(list)
    }

    #[inline]
    fn post_sends(&self, list: &mut Sends, peer: Option<&Peer>) -> (usize, Result<()>) {
        let destination = peer.and_then(|peer| {
            Some(Destination {
                way: peer.way.as_deref()?,
                queue_pair: peer.queue_pair,
                qkey: peer.qkey,
            })
        });
        self.queue_pair.post_sends(list, destination.as_ref())
    }

    fn arm(&self) -> Result<()> {
        self.queue_pair.received.arm()
    }

    fn take_event(&self) -> bool {
        self.queue_pair.received.take_event()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue_pair.received.fd()
    }

    fn reset(&self) -> Result<()> {
        self.queue_pair.reset()
    }

    fn start(&self) -> Result<()> {
        self.queue_pair.start()
    }

    fn event(&self) -> Option<Event> {
        self.queue_pair.domain().device().event()
    }
}
