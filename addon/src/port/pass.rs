//! How passed frames of a queue get back into the kernel: a way of the pass path that loops take turns to use.

use std::sync::{Arc, Mutex, PoisonError};

use bifurcate_datapath::engine::PassPath;

/// A queue's way back; it outlives each loop that uses it.
#[derive(Clone)]
pub(crate) struct SharedPass(Arc<Mutex<Box<dyn PassPath>>>);

impl SharedPass {
    pub(crate) fn new(way: Box<dyn PassPath>) -> SharedPass {
        SharedPass(Arc::new(Mutex::new(way)))
    }
}

impl PassPath for SharedPass {
    fn pass(&mut self, bytes: &[u8]) -> bifurcate_linux::Result<()> {
        // One loop has the queue at a time, so nobody waits here; a system call a frame follows anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes)
    }

    fn flush(&mut self) -> bifurcate_linux::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}
