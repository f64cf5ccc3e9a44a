//! A queue pair of a card, through rdma-core.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use bifurcate_linux::Result;
use bifurcate_linux::verbs::{
    CompletionQueue, Completions, Destination, Event, Flow, MemoryRegion, QueuePair, Receives, Sends,
    WorkQueue,
};

use super::pair::{Pair, Peer, Side};

/// What brings raw packets to a port's queues. Each queue keeps it: it ends with the last of them.
pub(super) type Rules = Arc<OnceLock<Vec<Flow>>>;

/// The queue pair of a queue with all that is its own. Dropped in this order.
#[derive(Debug)]
pub(super) struct CardPair {
    pub(super) _rules: Rules,
    /// Sends; and receives, where packets are not spread over several queues.
    pub(super) queue_pair: Arc<QueuePair>,
    /// Receives this queue's share, where they are.
    pub(super) work_queue: Option<Arc<WorkQueue>>,
    /// The pool, for the card.
    pub(super) _region: Arc<MemoryRegion>,
}

impl CardPair {
    #[inline]
    fn received(&self) -> &CompletionQueue {
        match &self.work_queue {
            Some(queue) => &queue.received,
            None => &self.queue_pair.received,
        }
    }
}

impl Pair for CardPair {
    #[inline]
    fn poll(&self, side: Side, into: &mut Completions) -> Result<usize> {
        match side {
            Side::Receive => self.received().poll(into),
            Side::Send => self.queue_pair.sent.poll(into),
        }
    }

    #[inline]
    fn post_receives(&self, list: &mut Receives) -> (usize, Result<()>) {
        match &self.work_queue {
            Some(queue) => queue.post_receives(list),
            None => self.queue_pair.post_receives(list),
        }
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
        self.received().arm()
    }

    fn take_event(&self) -> bool {
        self.received().take_event()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.received().fd()
    }

    fn reset(&self) -> Result<()> {
        self.queue_pair.reset()?;
        self.work_queue.as_ref().map_or(Ok(()), |queue| queue.reset())
    }

    fn start(&self) -> Result<()> {
        self.queue_pair.start()?;
        self.work_queue.as_ref().map_or(Ok(()), |queue| queue.start())
    }

    fn event(&self) -> Option<Event> {
        self.queue_pair.domain().device().event()
    }
}
