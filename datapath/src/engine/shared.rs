//! One transmit queue for several loops: where a port has fewer queues than the port that forwards to it, or fewer that
//! send than receive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::{Counters, Mtu, Port, QueuePair, TxQueue};
use crate::frame::Batch;

/// A transmit queue that several threads send by: each has a clone, and the queue is locked once a batch.
#[derive(Clone)]
pub struct SharedTx {
    /// `None` once it is closed.
    tx: Arc<Mutex<Option<Box<dyn TxQueue>>>>,
    counters: Arc<Counters>,
    mtu: Option<Mtu>,
}

impl SharedTx {
    /// Lets others send by `tx`.
    #[must_use]
    pub fn new(tx: Box<dyn TxQueue>) -> SharedTx {
        SharedTx {
            counters: Arc::clone(tx.counters()),
            mtu: tx.mtu().cloned(),
            tx: Arc::new(Mutex::new(Some(tx))),
        }
    }
}

impl SharedTx {
    /// Drops the queue itself, whoever still has a clone: what they send from now on is counted as `ring_full`.
    pub fn close(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn TxQueue>>> {
        // A panic in another loop's send leaves a queue whose own state is what it was.
        self.tx.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TxQueue for SharedTx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        // One lock a batch.
        let mut tx = self.lock();
        if let Some(tx) = tx.as_mut() {
            return tx.send(batch);
        }
        while let Some(frame) = batch.next_send() {
            batch.cache_mut().give(frame);
            // Under the lock, so that one thread at a time counts.
            self.counters.ring_full.add(1);
        }
        0
    }

    fn is_waiting(&self) -> bool {
        self.lock().as_ref().is_some_and(|tx| tx.is_waiting())
    }

    fn mtu(&self) -> Option<&Mtu> {
        self.mtu.as_ref()
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// Makes `count` transmit queues of one: each may go to another thread, all send by the same queue.
#[must_use]
pub fn share(tx: Box<dyn TxQueue>, count: usize) -> Vec<Box<dyn TxQueue>> {
    let shared = SharedTx::new(tx);
    (0..count)
        .map(|_| -> Box<dyn TxQueue> { Box::new(shared.clone()) })
        .collect()
}

/// The sending half of a queue that cannot send: another queue's, which counts what it sends as its own.
struct Borrowed {
    tx: SharedTx,
    /// Nothing: this queue sends nothing itself.
    counters: Arc<Counters>,
}

impl TxQueue for Borrowed {
    fn send(&mut self, batch: &mut Batch) -> usize {
        self.tx.send(batch)
    }

    fn is_waiting(&self) -> bool {
        self.tx.is_waiting()
    }

    fn mtu(&self) -> Option<&Mtu> {
        self.tx.mtu()
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// Lets queues of `port` that cannot send, those numbered `senders` and above, send by the ones that can, each by one
/// of them in turn. Changes nothing where all or none can.
pub fn borrow_senders(port: &mut Port, senders: u32) {
    let able = |index: u32| index < senders;
    let lenders = port.queues.iter().filter(|pair| able(pair.index)).count();
    let borrowers = port.queues.len() - lenders;
    if lenders == 0 || borrowers == 0 {
        return;
    }
    let mut shared = Vec::new();
    let wrap = |mut pair: QueuePair| {
        if able(pair.index) && shared.len() < borrowers {
            let tx = SharedTx::new(pair.tx);
            pair.tx = Box::new(tx.clone());
            shared.push(tx);
        }
        pair
    };
    port.queues = port.queues.drain(..).map(wrap).collect();
    let unable = port.queues.iter_mut().filter(|pair| !able(pair.index));
    for (pair, tx) in unable.zip(shared.iter().cycle()) {
        pair.tx = Box::new(Borrowed {
            tx: tx.clone(),
            counters: Arc::default(),
        });
    }
}
