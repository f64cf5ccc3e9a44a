//! A queue pair in memory, for tests: what is posted, what completes, and every way in which that goes wrong.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use bifurcate_linux::verbs::{Completion, Completions, Event, Receives, Sends, WcStatus};
use bifurcate_linux::{Error, Result};

use super::pair::{Pair, Peer, Side};
use super::queue::ROUTE_HEADER;

/// What the model's card has and does.
#[derive(Default)]
pub(super) struct Card {
    /// Number, address and length of what was posted.
    pub(super) receives: VecDeque<(u64, u64, u32)>,
    /// The bytes of what was posted to be sent, and its number.
    pub(super) sends: VecDeque<(u64, Vec<u8>)>,
    /// What the next polls give.
    pub(super) received: VecDeque<Completion>,
    pub(super) sent: VecDeque<Completion>,
    pub(super) events: VecDeque<Event>,
    /// The next completion raises an event.
    pub(super) armed: bool,
    /// Events that were raised and not taken.
    pub(super) raised: u32,
    /// How often it was reset.
    pub(super) resets: u32,
    pub(super) running: bool,
    /// Requests to send that it takes; then it is full.
    pub(super) room: usize,
    /// `modify` gives this error from now on.
    pub(super) refuses: Option<i32>,
}

/// The two ends of a model: the queue's, and the test's.
#[derive(Clone, Default)]
pub(super) struct Model(Arc<Mutex<Card>>);

impl Model {
    pub(super) fn new() -> Model {
        let model = Model::default();
        model.card().room = usize::MAX;
        model
    }

    pub(super) fn card(&self) -> MutexGuard<'_, Card> {
        self.0.lock().unwrap()
    }

    /// A datagram arrives from queue pair `from`: into the request that was posted first.
    pub(super) fn deliver(&self, from: u32, bytes: &[u8]) {
        let mut card = self.card();
        let (id, address, len) = card.receives.pop_front().expect("a posted request");
        let whole = ROUTE_HEADER as usize + bytes.len();
        assert!(whole <= len as usize, "the card checks the length");
        // SAFETY: the request names memory of the pool that its queue lent to the card; nobody else has it.
        unsafe {
            std::ptr::write_bytes(address as *mut u8, 0xee, ROUTE_HEADER as usize);
            let at = (address as *mut u8).add(ROUTE_HEADER as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
        card.complete(Completion {
            id,
            status: WcStatus::Success,
            len: whole as u32,
            from,
            has_route_header: true,
        });
    }

    /// The request that was posted first ends with a status.
    pub(super) fn end_receive(&self, status: WcStatus) {
        let mut card = self.card();
        let (id, ..) = card.receives.pop_front().expect("a posted request");
        card.complete(done(id, status));
    }

    /// All that was posted to be sent is done, as its last completion says.
    pub(super) fn end_sends(&self, status: WcStatus) {
        let mut card = self.card();
        let last = card.sends.back().map(|(id, _)| *id);
        card.sends.clear();
        if let Some(id) = last {
            card.sent.push_back(done(id, status));
        }
    }
}

impl Card {
    pub(super) fn complete(&mut self, completion: Completion) {
        self.received.push_back(completion);
        if std::mem::take(&mut self.armed) {
            self.raised += 1;
        }
    }
}

/// A completion that says nothing but how it ended.
pub(super) fn done(id: u64, status: WcStatus) -> Completion {
    Completion {
        id,
        status,
        len: 0,
        from: 0,
        has_route_header: false,
    }
}

impl Pair for Model {
    fn poll(&self, side: Side, into: &mut Completions) -> Result<usize> {
        let mut card = self.card();
        let queue = match side {
            Side::Receive => &mut card.received,
            Side::Send => &mut card.sent,
        };
        into.clear();
        let mut count = 0;
        while let Some(&completion) = queue.front() {
            if !into.push(completion) {
                break;
            }
            queue.pop_front();
            count += 1;
        }
        Ok(count)
    }

    fn post_receives(&self, list: &mut Receives) -> (usize, Result<()>) {
        let mut card = self.card();
        assert!(card.running, "posted to a queue pair in RESET");
        let count = list.len();
        card.receives.extend(list.requests());
        list.clear();
        (count, Ok(()))
    }

    fn post_sends(&self, list: &mut Sends, peer: Option<&Peer>) -> (usize, Result<()>) {
        let mut card = self.card();
        assert!(card.running && peer.is_some());
        let taken = list.len().min(card.room - card.sends.len().min(card.room));
        for (id, address, len) in list.requests().take(taken) {
            // SAFETY: the request names bytes of a frame that its queue lent to the card.
            let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, len as usize) }.to_vec();
            card.sends.push_back((id, bytes));
        }
        let all = taken == list.len();
        list.clear();
        let result = if all {
            Ok(())
        } else {
            Err(Error::new("ibv_post_send", "model", 12))
        };
        (taken, result)
    }

    fn arm(&self) -> Result<()> {
        self.card().armed = true;
        Ok(())
    }

    fn take_event(&self) -> bool {
        let mut card = self.card();
        let raised = card.raised > 0;
        card.raised -= u32::from(raised);
        raised
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn reset(&self) -> Result<()> {
        let mut card = self.card();
        if let Some(errno) = card.refuses {
            return Err(Error::new("ibv_modify_qp", "model state=RESET", errno));
        }
        card.receives.clear();
        card.sends.clear();
        card.resets += 1;
        card.running = false;
        Ok(())
    }

    fn start(&self) -> Result<()> {
        self.card().running = true;
        Ok(())
    }

    fn event(&self) -> Option<Event> {
        self.card().events.pop_front()
    }
}
