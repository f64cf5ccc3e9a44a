//! One transmit queue for several loops, where a port has fewer queues than the port that forwards to it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::device::{Counters, Mtu, TxQueue};
use crate::frame::Batch;

struct Shared {
    tx: Arc<Mutex<Box<dyn TxQueue>>>,
    counters: Arc<Counters>,
    mtu: Option<Mtu>,
}

impl TxQueue for Shared {
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

/// Makes `count` transmit queues of one: each may go to another thread, all send by the same queue, which is
/// locked once a batch.
#[must_use]
pub fn share(tx: Box<dyn TxQueue>, count: usize) -> Vec<Box<dyn TxQueue>> {
    let counters = Arc::clone(tx.counters());
    let mtu = tx.mtu().cloned();
    let tx = Arc::new(Mutex::new(tx));
    (0..count)
        .map(|_| -> Box<dyn TxQueue> {
            Box::new(Shared {
                tx: Arc::clone(&tx),
                counters: Arc::clone(&counters),
                mtu: mtu.clone(),
            })
        })
        .collect()
}
