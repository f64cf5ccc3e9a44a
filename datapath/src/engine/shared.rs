//! One transmit queue for several loops, where a port has fewer queues than the port that forwards to it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::device::{Counters, Mtu, TxQueue};
use crate::frame::Batch;

/// A transmit queue that several threads send by: each has a clone, and the queue is locked once a batch.
#[derive(Clone)]
pub struct SharedTx {
    tx: Arc<Mutex<Box<dyn TxQueue>>>,
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
            tx: Arc::new(Mutex::new(tx)),
        }
    }
}

impl TxQueue for SharedTx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        // One lock a batch. A panic in another loop's send leaves a queue whose own state is what it was.
        self.tx.lock().unwrap_or_else(PoisonError::into_inner).send(batch)
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
