//! How passed frames of a queue get back into the kernel: a way of the pass path that loops take turns to use.

use std::sync::{Arc, Mutex, PoisonError};

use bifurcate_datapath::engine::PassPath;
use bifurcate_datapath::frame::Batch;

/// A queue's way back; it outlives each loop that uses it.
#[derive(Clone)]
pub(crate) struct SharedPass {
    way: Arc<Mutex<Box<dyn PassPath>>>,
    /// What the kernel sends by this way is to be taken: the loop sends by the card's own queue.
    takes: bool,
}

impl SharedPass {
    pub(crate) fn new(way: Box<dyn PassPath>) -> SharedPass {
        SharedPass {
            way: Arc::new(Mutex::new(way)),
            takes: true,
        }
    }

    /// For a loop that has another port's queue to send by.
    pub(crate) fn one_way(self) -> SharedPass {
        SharedPass { takes: false, ..self }
    }

    fn way(&self) -> std::sync::MutexGuard<'_, Box<dyn PassPath>> {
        // One loop has the queue at a time, so nobody waits here; a system call a frame follows anyway.
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PassPath for SharedPass {
    fn pass(&mut self, bytes: &[u8]) -> bifurcate_linux::Result<()> {
        self.way().pass(bytes)
    }

    fn flush(&mut self) -> bifurcate_linux::Result<()> {
        self.way().flush()
    }

    fn take(&mut self, batch: &mut Batch) -> usize {
        if self.takes { self.way().take(batch) } else { 0 }
    }
}
