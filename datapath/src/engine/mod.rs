//! The poll loop: receive a batch, let a handler end each frame with a verdict, send, pass, drop.
//!
//! ```text
//!   RxQueue::poll -> [filter program: the rest is passed] -> Handler -> TxQueue::send | pass | drop
//! ```
//!
//! [`Lane`] is one turn of that for one queue; [`start`] runs lanes in threads; [`remote`] is the same turn
//! cut open where the handler stands, for a handler in another language.

use crate::frame::Batch;

mod exits;
mod finish;
mod grace;
mod handlers;
mod lane;
mod pace;
pub mod pass;
mod patience;
pub mod remote;
mod run;
mod shared;

#[cfg(test)]
mod tests;

pub use crate::frame::Verdict;
pub use exits::Out;
pub use grace::Grace;
pub use handlers::{Count, Discard, Forward, Reflect};
pub use lane::Lane;
pub use pace::Pace;
pub use patience::Patience;
pub use run::{Options, Run, start};
pub use shared::{SharedTx, borrow_senders, share};

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

    /// Puts what the kernel sends into the empty batch, for a way that stands in for the card's interface; gives how
    /// many frames it took. Never waits.
    fn take(&mut self, batch: &mut Batch) -> usize {
        let _ = batch;
        0
    }
}
