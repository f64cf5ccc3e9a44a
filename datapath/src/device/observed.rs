//! A queue whose frames somebody else sees too: the shells of the wrappers that copy frames and change nothing.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{Counters, LeftToCard, Mtu, QueuePair, RxQueue, State, TxQueue};
use crate::frame::Batch;

/// Sees the frames of one direction of a queue.
pub(super) trait Observer: Send {
    /// Frames that have just arrived: those of `batch` from `first` on.
    fn received(&self, batch: &Batch, first: usize, counters: &Counters);

    /// Frames that are about to be sent: afterwards they are the device's. What it then refuses is seen too.
    fn sending(&self, batch: &Batch, counters: &Counters);
}

/// Puts an observer in front of each direction of a queue.
pub(super) fn observe<O: Observer + 'static>(pair: QueuePair, rx: O, tx: O) -> QueuePair {
    QueuePair {
        index: pair.index,
        rx: Box::new(ObservedRx {
            inner: pair.rx,
            observer: rx,
        }),
        tx: Box::new(ObservedTx {
            inner: pair.tx,
            observer: tx,
        }),
    }
}

struct ObservedRx<O> {
    inner: Box<dyn RxQueue>,
    observer: O,
}

impl<O: Observer> RxQueue for ObservedRx<O> {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let first = batch.len();
        let got = self.inner.poll(batch);
        if got > 0 {
            self.observer.received(batch, first, self.inner.counters());
        }
        got
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.ready_fd()
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.inner.prepare_to_wait()
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn is_starving(&self) -> bool {
        self.inner.is_starving()
    }

    fn left_to_card(&self) -> LeftToCard {
        self.inner.left_to_card()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.inner.counters()
    }
}

struct ObservedTx<O> {
    inner: Box<dyn TxQueue>,
    observer: O,
}

impl<O: Observer> TxQueue for ObservedTx<O> {
    fn send(&mut self, batch: &mut Batch) -> usize {
        self.observer.sending(batch, self.inner.counters());
        self.inner.send(batch)
    }

    fn is_waiting(&self) -> bool {
        self.inner.is_waiting()
    }

    fn mtu(&self) -> Option<&Mtu> {
        self.inner.mtu()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.inner.counters()
    }
}
