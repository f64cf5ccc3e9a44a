//! A port as all threads of the process see it: its queues' places, its pool, its counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bifurcate_datapath::device::af_xdp::QueueSocket;
use bifurcate_datapath::device::tap::Tap;
use bifurcate_datapath::device::{Port, QueueCounters, Totals};
use bifurcate_datapath::engine::{Grace, PassPath};
use bifurcate_datapath::filter::Program;
use bifurcate_datapath::frame::Umem;

use super::pass::SharedPass;
use super::slot::Slot;

/// An open port.
pub(crate) struct PortShared {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) umem: Arc<Umem>,
    pub(crate) slots: Vec<Arc<Slot>>,
    /// One way back into the kernel for each queue, once the port has been told to open them.
    pass: Mutex<Vec<SharedPass>>,
    /// Decides which frames handlers see, where nothing before the port has.
    filter: Mutex<Option<Program>>,
    counters: Vec<QueueCounters>,
    sockets: Mutex<Vec<Arc<QueueSocket>>>,
    /// Ports whose loops send by this port's queues.
    senders: Mutex<Vec<Weak<PortShared>>>,
    /// Writes every frame of the port to a file, until the port is closed.
    tap: Mutex<Option<Tap>>,
    closed: AtomicBool,
    /// Its loops never sleep, and never nap.
    pub(crate) busy_poll: bool,
}

static NEXT: AtomicU32 = AtomicU32::new(1);
/// Open ports by number: how a worker finds the port that its main thread opened.
static PORTS: Mutex<BTreeMap<u32, Weak<PortShared>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is only ever pushed to, moved out of or replaced: never half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PortShared {
    pub(crate) fn new(
        port: Port,
        sockets: Vec<Arc<QueueSocket>>,
        tap: Option<Tap>,
        busy_poll: bool,
    ) -> bifurcate_linux::Result<Arc<PortShared>> {
        let counters = port.counters();
        let slots = port
            .queues
            .into_iter()
            .map(Slot::new)
            .collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(PortShared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: port.name,
            umem: port.umem,
            slots,
            pass: Mutex::default(),
            filter: Mutex::default(),
            counters,
            sockets: Mutex::new(sockets),
            senders: Mutex::default(),
            tap: Mutex::new(tap),
            closed: AtomicBool::new(false),
            busy_poll,
        });
        lock(&PORTS).insert(shared.id, Arc::downgrade(&shared));
        Ok(shared)
    }

    /// The open port of that number.
    pub(crate) fn find(id: u32) -> Option<Arc<PortShared>> {
        lock(&PORTS).get(&id).and_then(Weak::upgrade)
    }

    /// Each queue's counters: those of its two halves and those of the loops that had it.
    pub(crate) fn totals(&self) -> Vec<Totals> {
        let add = |(counters, slot): (&QueueCounters, &Arc<Slot>)| {
            let mut totals = counters.totals();
            totals += slot.totals();
            totals
        };
        self.counters.iter().zip(&self.slots).map(add).collect()
    }

    /// How often the queue at `place` found no free frame.
    pub(crate) fn no_frames(&self, place: usize) -> u64 {
        self.counters
            .get(place)
            .map_or(0, |counters| counters.totals().no_frames)
    }

    /// The AF_XDP sockets, in the order of the queues; none for other devices and after the close.
    pub(crate) fn sockets(&self) -> Vec<Arc<QueueSocket>> {
        lock(&self.sockets).clone()
    }

    /// Gives each queue its way back into the kernel.
    pub(crate) fn set_pass(&self, ways: Vec<Box<dyn PassPath>>) {
        *lock(&self.pass) = ways.into_iter().map(SharedPass::new).collect();
    }

    /// The way back of the queue at `place`. `None`: passed frames are dropped.
    /// `own`: the loop sends by the port's own queue, and so for the kernel too.
    pub(crate) fn pass(&self, place: usize, own: bool) -> Option<Box<dyn PassPath>> {
        let way = lock(&self.pass).get(place).cloned()?;
        Some(Box::new(if own { way } else { way.one_way() }))
    }

    /// Shows handlers only what `program` wants; everything else is passed.
    pub(crate) fn set_filter(&self, program: Program) {
        *lock(&self.filter) = Some(program);
    }

    /// What handlers are to see; none: everything.
    pub(crate) fn filter(&self) -> Option<Program> {
        lock(&self.filter).clone()
    }

    /// Notes a port whose loops are going to send by this port's queues: this one's close waits for them.
    pub(crate) fn add_sender(&self, port: &Arc<PortShared>) {
        let mut senders = lock(&self.senders);
        senders.retain(|sender| sender.upgrade().is_some_and(|sender| sender.id != port.id));
        senders.push(Arc::downgrade(port));
    }

    /// Asks every loop for its queue and does not wait; `stopped` waits for those that were asked.
    pub(crate) fn ask_all(&self) -> Vec<u64> {
        self.slots.iter().map(|slot| slot.ask()).collect()
    }

    /// Waits for the loops that `ask_all` asked; gives the places of those still missing after the grace.
    pub(crate) fn stopped(&self, asked: &[u64], grace: &mut Grace) -> Vec<u32> {
        (0u32..)
            .zip(self.slots.iter().zip(asked))
            .filter(|(_, (slot, asked))| !slot.wait(**asked, grace))
            .map(|(place, _)| place)
            .collect()
    }

    /// Asks every loop for its queue and waits; gives the places of those still missing after the grace.
    pub(crate) fn stop(&self, grace: &mut Grace) -> Vec<u32> {
        self.stopped(&self.ask_all(), grace)
    }

    /// Stops every loop, closes the device and puts zero pages in the place of the pool. When queues are
    /// missing after the grace, gives their places and leaves everything as it is.
    pub(crate) fn close(&self, mut grace: Grace) -> bifurcate_linux::Result<Vec<u32>> {
        // First, so that nobody takes a queue between the stop and the end.
        self.set_shut(true);
        let missing = self.stop(&mut grace);
        if !missing.is_empty() {
            self.set_shut(false);
            return Ok(missing);
        }
        let senders: Vec<_> = lock(&self.senders).drain(..).collect();
        for sender in senders.iter().filter_map(Weak::upgrade) {
            if sender.id != self.id {
                sender.stop(&mut grace);
            }
        }
        self.shut()?;
        Ok(Vec::new())
    }

    fn set_shut(&self, shut: bool) {
        for slot in &self.slots {
            slot.set_shut(shut);
        }
    }

    fn shut(&self) -> bifurcate_linux::Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        lock(&PORTS).remove(&self.id);
        // The sockets first: once the last holder of each is gone the kernel writes to the pool no more.
        for slot in &self.slots {
            slot.close();
        }
        lock(&self.sockets).clear();
        lock(&self.pass).clear();
        let tapped = lock(&self.tap)
            .take()
            .map_or(Ok(()), |tap| tap.finish().map(drop));
        self.umem.retire()?;
        tapped
    }
}

impl Drop for PortShared {
    fn drop(&mut self) {
        // Nobody can have a queue any more: each holder also holds the port. ENOMEM leaves the pool as it
        // was, mapped: views of it then show old frames and still never reach unmapped memory.
        let _ = self.shut();
    }
}
