//! One queue's share of a poll loop: where frames come from, who looks at them, where they go.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::device::{Counters, RxQueue, State};
use crate::filter::Program;
use crate::frame::{Batch, Umem};

use super::exits::Exits;
use super::{Handler, Out, PassPath};

/// One receive queue with its handler and its ways out.
pub struct Lane {
    rx: Box<dyn RxQueue>,
    batch: Batch,
    handler: Box<dyn Handler>,
    filter: Option<Program>,
    exits: Exits,
}

impl Lane {
    /// A lane that receives up to `burst` frames of `umem` a turn and may send to `outs`, of which a verdict
    /// reaches the first 256.
    #[must_use]
    pub fn new(
        rx: Box<dyn RxQueue>,
        umem: &Arc<Umem>,
        burst: usize,
        handler: Box<dyn Handler>,
        outs: Vec<Out>,
    ) -> Lane {
        let exits = Exits::new(outs, rx.left_to_card());
        Lane {
            rx,
            batch: Batch::new(umem, burst),
            handler,
            filter: None,
            exits,
        }
    }

    /// Shows the handler only what `program` wants; everything else is passed to the kernel.
    #[must_use]
    pub fn with_filter(mut self, program: Program) -> Lane {
        self.filter = Some(program);
        self
    }

    /// Gives passed frames a way into the kernel; without one they are dropped.
    #[must_use]
    pub fn with_pass(mut self, path: Box<dyn PassPath>) -> Lane {
        self.exits.pass = Some(path);
        self
    }

    /// One turn: a batch received, handled and gone. Gives how many frames arrived.
    #[inline]
    pub fn turn(&mut self) -> usize {
        self.exits.send_for_kernel(&mut self.batch);
        let got = self.rx.poll(&mut self.batch);
        if got == 0 {
            self.exits.idle(&mut self.batch);
            return 0;
        }
        if let Some(program) = &self.filter {
            self.exits.sieve(program, &mut self.batch);
        }
        self.handler.handle(&mut self.batch);
        self.exits.settle(&mut self.batch);
        got
    }

    /// What becomes readable when a turn may find frames; `None`: always turn again.
    #[must_use]
    pub fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.rx.ready_fd()
    }

    /// Says that the calling loop is about to wait; false when frames have arrived meanwhile: turn again instead.
    pub fn prepare_to_wait(&mut self) -> bool {
        self.rx.prepare_to_wait()
    }

    /// Whether something goes on that [`Lane::ready_fd`] does not tell of: the next turn should come soon, frames or not.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.rx.is_starving() || self.exits.is_waiting()
    }

    /// Whether the device is there, as the last turn found it.
    #[must_use]
    pub fn state(&self) -> State {
        self.rx.state()
    }

    /// What the loop itself has counted: dropped, passed, handler_invalid, and copies that found no frame.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.exits.counters
    }

    /// Takes the lane apart, its frames back in the pool: the receive queue and the outs.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn RxQueue>, Vec<Out>) {
        (self.rx, self.exits.outs)
    }
}
