//! The sending half of a socket without a tx ring: it takes no frame, and says so in its counters.

use std::sync::Arc;

use crate::device::{Counters, TxQueue};
use crate::frame::Batch;

/// Nothing is sent: each frame that was to be goes back to the pool and counts as `handler_invalid`.
#[derive(Default)]
pub(super) struct Silent {
    counters: Arc<Counters>,
}

impl TxQueue for Silent {
    fn send(&mut self, batch: &mut Batch) -> usize {
        while let Some(frame) = batch.next_send() {
            self.counters.handler_invalid.add(1);
            batch.cache_mut().give(frame);
        }
        0
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}
