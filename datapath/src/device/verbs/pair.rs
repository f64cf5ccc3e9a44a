//! The queue pair of one queue, as its two halves use it: a card's, or a model's.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bifurcate_linux::Result;
use bifurcate_linux::verbs::{AddressHandle, Completions, Event, Receives, Sends};

/// A direction of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Receive,
    Send,
}

/// Who is at the other end of a queue pair of datagrams.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The way there; none in a model.
    pub(super) way: Option<Arc<AddressHandle>>,
    /// The number of its queue pair.
    pub(super) queue_pair: u32,
    /// The key that it checks.
    pub(super) qkey: u32,
}

/// What the halves of a queue ask of their queue pair. Calls for one side come from one thread at a time.
pub(super) trait Pair: Send + Sync {
    /// Takes completions of a side; gives how many.
    fn poll(&self, side: Side, into: &mut Completions) -> Result<usize>;
    /// Posts and empties a list; gives how many the card took, and why not all.
    fn post_receives(&self, list: &mut Receives) -> (usize, Result<()>);
    /// As `post_receives`, all to `peer` where there is one.
    fn post_sends(&self, list: &mut Sends, peer: Option<&Peer>) -> (usize, Result<()>);
    /// Has the next receive completion raise an event.
    fn arm(&self) -> Result<()>;
    /// Takes such an event, where one has come.
    fn take_event(&self) -> bool;
    /// Readable when such an event has come.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
    /// Has the card forget every work request.
    fn reset(&self) -> Result<()>;
    /// From there to a state in which it receives and sends.
    fn start(&self) -> Result<()>;
    /// The next thing that happened to the card.
    fn event(&self) -> Option<Event>;
}
