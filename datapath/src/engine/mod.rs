//! The poll loop: receive a batch, let a handler end each frame with a verdict, send, pass, drop.

use crate::frame::Batch;

pub mod pass;

pub use crate::frame::Verdict;

/// What looks at received frames and ends each with a verdict.
pub trait Handler: Send {
    /// Looks at a batch. A frame that is given no verdict is dropped.
    fn handle(&mut self, batch: &mut Batch);
}

/// A way back into the kernel: a frame appears as if it had just arrived on the interface.
pub trait PassPath: Send {
    /// Passes one frame (Ethernet header first). May hold it until [`PassPath::flush`].
    ///
    /// # Errors
    /// When the kernel refused it; the frame is then counted as dropped.
    fn pass(&mut self, bytes: &[u8]) -> bifurcate_linux::Result<()>;

    /// Called once after the passed frames of a batch: whatever is held goes out now.
    ///
    /// # Errors
    /// When the kernel refused them.
    fn flush(&mut self) -> bifurcate_linux::Result<()> {
        Ok(())
    }
}
