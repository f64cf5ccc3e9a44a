//! Where frames leave a loop: the ports they are sent to, the kernel, the pool.

use std::sync::Arc;

use crate::device::{Counters, LeftToCard, TxQueue};
use crate::filter::Program;
use crate::frame::{BATCH_MAX, Batch, Umem, Verdict};

use super::PassPath;
use super::finish::Finish;

/// A transmit queue that a loop may send to. Its place in the list of outs is the port number of a verdict.
pub struct Out {
    tx: Box<dyn TxQueue>,
    /// For a queue of another pool: frames are copied into this batch, which is of that pool.
    staging: Option<Batch>,
}

impl Out {
    /// A queue that sends frames of `umem`. Frames that a loop receives from the same pool are moved to it,
    /// frames of another pool copied.
    #[must_use]
    pub fn new(tx: Box<dyn TxQueue>, umem: &Arc<Umem>, received_from: &Arc<Umem>) -> Out {
        let staging = (umem.id() != received_from.id()).then(|| Batch::new(umem, BATCH_MAX));
        Out { tx, staging }
    }

    /// What the transmit queue has counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        self.tx.counters()
    }

    /// The transmit queue itself, when the loop is over.
    #[must_use]
    pub fn into_tx(self) -> Box<dyn TxQueue> {
        self.tx
    }

    /// Whether frames that it took wait for room in the device.
    fn is_waiting(&self) -> bool {
        self.tx.is_waiting()
    }

    /// Most bytes of an IP packet that it sends.
    pub(super) fn mtu(&self) -> usize {
        self.tx.mtu().map_or(usize::MAX, |mtu| mtu.get() as usize)
    }

    /// Sends what `batch` has for port `port`, and collects completions either way.
    pub(super) fn send(&mut self, batch: &mut Batch, port: u8, counters: &Counters) {
        batch.sending_to(port);
        let Some(staging) = &mut self.staging else {
            self.tx.send(batch);
            return;
        };
        while let Some(frame) = batch.next_send() {
            match staging.cache_mut().copy_in(batch.cache().bytes(&frame)) {
                // Staging is empty at the start and as large as the largest batch: it has room.
                Some(copy) => {
                    if let Err(copy) = staging.push_send(copy, 0) {
                        staging.cache_mut().give(copy);
                    }
                }
                None if frame.len() as usize > staging.cache().largest() => counters.too_long.add(1),
                None => counters.no_frames.add(1),
            }
            batch.cache_mut().give(frame);
        }
        staging.sending_to(0);
        self.tx.send(staging);
        staging.clear();
    }
}

/// All the ways out of one loop.
pub(super) struct Exits {
    pub(super) outs: Vec<Out>,
    pub(super) pass: Option<Box<dyn PassPath>>,
    pub(super) counters: Arc<Counters>,
    /// For frames that lack what a card would have made.
    finish: Option<Box<Finish>>,
}

impl Exits {
    /// `left`: what the frames that will leave here may lack.
    pub(super) fn new(outs: Vec<Out>, left: LeftToCard) -> Exits {
        Exits {
            outs,
            pass: None,
            counters: Arc::default(),
            finish: left.anything().then(|| Box::new(Finish::new(left))),
        }
    }

    /// Passes what the program does not want, and leaves the rest in the batch.
    pub(super) fn sieve(&mut self, program: &Program, batch: &mut Batch) {
        let passed = batch.retain(|bytes| {
            let wanted = program.matches(bytes);
            if !wanted {
                pass(&mut self.pass, &self.counters, bytes);
            }
            wanted
        });
        if passed > 0 {
            self.flush_passed();
        }
    }

    /// Does with every frame what its verdict says; the batch is empty afterwards.
    #[inline]
    pub(super) fn settle(&mut self, batch: &mut Batch) {
        if let Some(finish) = &mut self.finish {
            finish.sends(batch, &mut self.outs, &self.counters);
        }
        for (port, out) in self.outs.iter_mut().enumerate() {
            out.send(batch, port as u8, &self.counters);
        }
        if batch.left() > 0 {
            self.settle_rest(batch);
        }
        batch.clear();
    }

    /// Sends what the kernel sends through the way back into it; the batch is empty before and afterwards.
    #[inline]
    pub(super) fn send_for_kernel(&mut self, batch: &mut Batch) {
        if let Some(path) = &mut self.pass
            && !self.outs.is_empty()
            && path.take(batch) > 0
        {
            batch.send_all(0);
            self.settle(batch);
        }
    }

    /// Whether frames wait for room in a device: they go when it is sent to again.
    pub(super) fn is_waiting(&self) -> bool {
        self.outs.iter().any(Out::is_waiting)
    }

    /// Collects completions when nothing has arrived: frames on their way out may be all the pool has.
    pub(super) fn idle(&mut self, batch: &mut Batch) {
        for (port, out) in self.outs.iter_mut().enumerate() {
            out.send(batch, port as u8, &self.counters);
        }
    }

    fn settle_rest(&mut self, batch: &mut Batch) {
        if batch.count_of(Verdict::Pass) > 0 {
            for at in 0..batch.len() {
                if batch.verdict(at) == Some(Verdict::Pass) {
                    pass(&mut self.pass, &self.counters, batch.bytes(at));
                }
            }
            self.flush_passed();
        }
        let outs = self.outs.len();
        // A frame for a port that exists found its ring full, which the queue counted.
        let nowhere = batch.count_sends_from(outs);
        // A native handler takes what it keeps; what still says Keep is nobody's.
        let kept = batch.count_of(Verdict::Keep);
        self.counters.handler_invalid.add((nowhere + kept) as u64);
        self.counters.dropped.add(batch.count_of(Verdict::Drop) as u64);
    }

    fn flush_passed(&mut self) {
        if let Some(path) = &mut self.pass {
            // The path counted them as its own; a refusal of all at once is a refusal of none in particular.
            let _ = path.flush();
        }
    }
}

fn pass(path: &mut Option<Box<dyn PassPath>>, counters: &Counters, bytes: &[u8]) {
    match path.as_mut().map(|path| path.pass(bytes)) {
        Some(Ok(())) => counters.passed.add(1),
        Some(Err(_)) | None => counters.dropped.add(1),
    }
}
