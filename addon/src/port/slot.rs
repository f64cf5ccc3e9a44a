//! The place of a queue in its port: who has the queue, and how the port gets it back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bifurcate_datapath::device::{Counters, QueuePair, RxQueue, Totals, TxQueue};
use bifurcate_datapath::engine::{Grace, SharedTx};
use bifurcate_linux::event::EventFd;

/// What a queue's thread and its port share.
pub(crate) struct Slot {
    /// The queue is to be given back after the batch in hand.
    asked: AtomicBool,
    /// Wakes whoever waits for the queue.
    wake: EventFd,
    halves: Mutex<Halves>,
    returned: Condvar,
}

#[derive(Default)]
struct Halves {
    rx: Option<Box<dyn RxQueue>>,
    tx: Option<Box<dyn TxQueue>>,
    /// The sending half too, once somebody else was to send by it: `tx` is then one more clone of this.
    shared: Option<SharedTx>,
    /// A loop has the receiving half.
    out: bool,
    /// How often the receiving half was taken: which loop it was that somebody asked for it.
    taken: u64,
    /// The port is being closed, or closed: nobody gets anything.
    shut: bool,
    /// What the loop that has the queue counts.
    counting: Option<Arc<Counters>>,
    /// What earlier loops counted.
    counted: Totals,
}

impl Halves {
    fn share(&mut self) -> Option<SharedTx> {
        if self.shut {
            return None;
        }
        if self.shared.is_none() {
            let shared = SharedTx::new(self.tx.take()?);
            self.tx = Some(Box::new(shared.clone()));
            self.shared = Some(shared);
        }
        self.shared.clone()
    }

    fn ended(&mut self) {
        self.out = false;
        if let Some(counters) = self.counting.take() {
            self.counted += counters.totals();
        }
    }
}

/// The receiving half, and the sending one where it is not with somebody else.
pub(crate) type Taken = (Box<dyn RxQueue>, Option<Box<dyn TxQueue>>);

impl Slot {
    pub(crate) fn new(pair: QueuePair) -> bifurcate_linux::Result<Arc<Slot>> {
        Ok(Arc::new(Slot {
            asked: AtomicBool::new(false),
            wake: EventFd::new()?,
            halves: Mutex::new(Halves {
                rx: Some(pair.rx),
                tx: Some(pair.tx),
                ..Halves::default()
            }),
            returned: Condvar::new(),
        }))
    }

    /// Gives the receiving half, and the sending one where it is here, to the calling thread. `None` while
    /// another thread has it, or when the port is closed.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut halves = self.lock();
        if halves.shut {
            return None;
        }
        let rx = halves.rx.take()?;
        halves.out = true;
        halves.taken += 1;
        // An earlier request to stop was answered when the queue came back.
        self.asked.store(false, Ordering::Release);
        self.wake.lower();
        Some((rx, halves.tx.take()))
    }

    /// Notes what the loop that took the queue counts.
    pub(crate) fn counting(&self, counters: &Arc<Counters>) {
        self.lock().counting = Some(Arc::clone(counters));
    }

    /// Puts back a sending half that the loop does not need.
    pub(crate) fn keep_tx(&self, tx: Option<Box<dyn TxQueue>>) {
        if tx.is_some() {
            self.lock().tx = tx;
        }
    }

    /// Lets others send by the sending half from now on, also while a loop has the queue.
    pub(crate) fn open_to_others(&self) {
        self.lock().share();
    }

    /// A sending half that another port's loop may send by. `None` while the sending half is with a loop that
    /// took it for itself alone, and when the port is closed.
    pub(crate) fn second_tx(&self) -> Option<Box<dyn TxQueue>> {
        let shared = self.lock().share()?;
        Some(Box::new(shared))
    }

    /// Takes the queue back from the thread that had it.
    pub(crate) fn give_back(&self, rx: Box<dyn RxQueue>, tx: Option<Box<dyn TxQueue>>) {
        let mut halves = self.lock();
        halves.rx = Some(rx);
        if tx.is_some() {
            halves.tx = tx;
        }
        halves.ended();
        drop(halves);
        self.returned.notify_all();
    }

    /// The loop that had the queue is gone, and the queue with it: nobody has to wait for it any more.
    pub(crate) fn lost(&self) {
        self.lock().ended();
        self.returned.notify_all();
    }

    /// Lets nobody take the queue, or send by it, from now on; or lets them again.
    pub(crate) fn set_shut(&self, shut: bool) {
        self.lock().shut = shut;
    }

    /// What loops have counted of the queue: dropped, passed, handler_invalid.
    pub(crate) fn totals(&self) -> Totals {
        let halves = self.lock();
        let mut totals = halves.counted;
        if let Some(counters) = &halves.counting {
            totals += counters.totals();
        }
        totals
    }

    /// Closes the queue, also for others that still send by it. A loop that still has it keeps its half.
    pub(crate) fn close(&self) {
        let mut halves = self.lock();
        halves.shut = true;
        halves.rx = None;
        halves.tx = None;
        if let Some(shared) = halves.shared.take() {
            shared.close();
        }
    }

    /// Asks whoever has the queue to give it back.
    /// Gives which loop was asked.
    pub(crate) fn ask(&self) -> u64 {
        // Under the lock, so that the request reaches the loop that has the queue now and none that comes later.
        let halves = self.lock();
        if halves.out {
            self.asked.store(true, Ordering::Release);
            self.wake.raise();
        }
        halves.taken
    }

    /// Whether the queue is asked back.
    #[inline]
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Readable once the queue is asked back.
    pub(crate) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Waits until the loop that was asked has given the queue back; false when it still has it after the grace.
    pub(crate) fn wait(&self, asked: u64, grace: &mut Grace) -> bool {
        let mut halves = self.lock();
        while halves.out && halves.taken == asked {
            let Some(step) = grace.step() else {
                return false;
            };
            let began = Instant::now();
            halves = self
                .returned
                .wait_timeout(halves, step)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            grace.waited(began.elapsed());
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        // Under this lock whole boxes are moved and numbers added: nothing can be left half done.
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
