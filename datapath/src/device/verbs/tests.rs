//! A queue over a model of a card: frames in and out, and everything that a completion can say.

use std::sync::Arc;

use bifurcate_linux::verbs::{Completion, Event, WcStatus};

use super::model::{Model, done};
use super::pair::Peer;
use super::queue::{Queue, Shape};
use super::rx::HOUSEKEEPING;
use super::rx::Rx;
use super::status::Status;
use super::tx::Tx;
use crate::device::{Mtu, RxQueue, State, TxQueue};
use crate::frame::{Batch, Cache, Pages, Umem, UmemConfig, Verdict};

const RING: u32 = 64;
const FRAMES: u32 = 512;
/// The queue pair at the other end.
const PEER: u32 = 17;

struct Rig {
    model: Model,
    umem: Arc<Umem>,
    status: Arc<Status>,
    queue: Option<Arc<Queue>>,
    rx: Option<Rx>,
    tx: Option<Tx>,
    batch: Batch,
}

fn rig_of(frames: u32) -> Rig {
    let umem = Umem::map(&UmemConfig {
        frames,
        pages: Pages::Ordinary,
        ..UmemConfig::default()
    })
    .unwrap();
    let (model, status) = (Model::new(), Arc::<Status>::default());
    let shape = Shape {
        ring_size: RING,
        datagrams: true,
        lkey: 7,
    };
    let queue = Queue::new(Box::new(model.clone()), shape, Mtu::new(1010), &status, &umem);
    let queue = Arc::new(queue);
    queue.start(&mut Cache::new(&umem)).unwrap();
    let peer = Peer {
        way: None,
        queue_pair: PEER,
        qkey: 1,
    };
    queue.expect(PEER);
    queue.meet(Some(peer), 1024);
    Rig {
        rx: Some(Rx::new(&queue)),
        tx: Some(Tx::new(&queue)),
        batch: Batch::new(&umem, 32),
        queue: Some(queue),
        model,
        umem,
        status,
    }
}

fn rig() -> Rig {
    rig_of(FRAMES)
}

/// A frame that differs from others.
fn frame(number: u8) -> Vec<u8> {
    (0..60)
        .map(|at| number.wrapping_mul(31).wrapping_add(at))
        .collect()
}

impl Rig {
    fn rx(&mut self) -> &mut Rx {
        self.rx.as_mut().unwrap()
    }

    /// Polls into an empty batch; gives the frames.
    fn poll(&mut self) -> Vec<Vec<u8>> {
        self.batch.clear();
        let got = self.rx.as_mut().unwrap().poll(&mut self.batch);
        (0..got).map(|at| self.batch.bytes(at).to_vec()).collect()
    }

    /// Polls when it is time again to hear of the card.
    fn hear(&mut self) {
        std::thread::sleep(HOUSEKEEPING);
        self.poll();
    }

    fn send(&mut self, frames: &[Vec<u8>]) -> usize {
        self.batch.clear();
        for bytes in frames {
            let frame = self.batch.cache_mut().copy_in(bytes).unwrap();
            self.batch.push_send(frame, 0).unwrap();
        }
        self.batch.sending_to(0);
        let sent = self.tx.as_mut().unwrap().send(&mut self.batch);
        self.batch.clear();
        sent
    }

    /// Drops the queue; every frame is free then.
    fn end(self) {
        let all = self.umem.frames() as usize;
        assert_eq!(self.free(), all);
    }

    /// Drops the queue; gives how many frames are free then.
    fn free(mut self) -> usize {
        self.batch.clear();
        (self.rx, self.tx, self.queue) = (None, None, None);
        self.batch.cache_mut().flush();
        self.umem.in_depot().0
    }
}

#[test]
fn datagrams_become_frames_and_their_route_header_is_left_behind() {
    let mut rig = rig();
    assert_eq!(rig.model.card().receives.len(), RING as usize);
    let frames: Vec<_> = (0..40).map(frame).collect();
    for bytes in &frames {
        rig.model.deliver(PEER, bytes);
    }
    assert_eq!(rig.poll(), frames[..32]);
    assert_eq!(rig.poll(), frames[32..]);
    assert_eq!(rig.poll(), Vec::<Vec<u8>>::new());
    let totals = rig.rx().counters().totals();
    assert_eq!((totals.received, totals.received_bytes), (40, 40 * 60));
    // The slots have frames again, but for fewer than are filled at once.
    assert!(rig.model.card().receives.len() > RING as usize - RING as usize / 4);
    rig.end();
}

#[test]
fn sent_frames_are_the_cards_until_it_says_so() {
    let mut rig = rig();
    let frames: Vec<_> = (0..20).map(frame).collect();
    assert_eq!(rig.send(&frames), 20);
    let posted: Vec<_> = rig
        .model
        .card()
        .sends
        .iter()
        .map(|(_, bytes)| bytes.clone())
        .collect();
    assert_eq!(posted, frames);
    let under_way = |rig: &Rig| rig.queue.as_ref().unwrap().tx().under_way();
    assert_eq!(under_way(&rig), 20);
    rig.send(&[]);
    assert_eq!(under_way(&rig), 20, "nothing completed");
    // One completion, of the last request, is for all.
    rig.model.end_sends(WcStatus::Success);
    rig.send(&[]);
    assert_eq!(under_way(&rig), 0);
    rig.end();
}

#[test]
fn a_full_send_queue_is_counted_and_loses_no_frame() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.send(&(0..30).map(frame).collect::<Vec<_>>());
    }
    let totals = rig.queue.as_ref().unwrap().sent.totals();
    assert_eq!(
        (totals.sent, totals.ring_full),
        (u64::from(RING), 90 - u64::from(RING))
    );
    rig.model.end_sends(WcStatus::Success);
    assert_eq!(rig.send(&[frame(1)]), 1);
    rig.end();
}

#[test]
fn what_a_card_takes_in_part_is_taken_back() {
    let mut rig = rig();
    rig.model.card().room = 5;
    assert_eq!(rig.send(&(0..8).map(frame).collect::<Vec<_>>()), 5);
    let queue = Arc::clone(rig.queue.as_ref().unwrap());
    assert_eq!(queue.sent.totals().ring_full, 3);
    assert_eq!(queue.tx().under_way(), 5);
    drop(queue);
    rig.end();
}

#[test]
fn nobody_at_the_other_end_takes_nothing_and_gives_nothing() {
    let mut rig = rig();
    let queue = rig.queue.as_ref().unwrap();
    queue.expect(0);
    queue.meet(None, 1024);
    assert_eq!(rig.send(&[frame(1)]), 0);
    assert_eq!(rig.queue.as_ref().unwrap().sent.totals().ring_full, 1);
    rig.model.deliver(PEER, &frame(2));
    rig.model.deliver(0, &frame(3));
    assert!(rig.poll().is_empty());
    assert_eq!(rig.rx().counters().totals().invalid_descriptor, 2);
    rig.end();
}

#[test]
fn a_datagram_of_a_stranger_is_dropped_and_counted() {
    let mut rig = rig();
    rig.model.deliver(PEER + 1, &frame(1));
    rig.model.deliver(PEER, &frame(2));
    assert_eq!(rig.poll(), [frame(2)]);
    assert_eq!(rig.rx().counters().totals().invalid_descriptor, 1);
    rig.end();
}

#[test]
fn completions_that_cannot_be_are_dropped_and_counted() {
    let mut rig = rig();
    let said = |id, len| Completion {
        id,
        status: WcStatus::Success,
        len,
        from: PEER,
        has_route_header: true,
    };
    let (first, ..) = rig.model.card().receives[0];
    {
        let mut card = rig.model.card();
        card.received.push_back(said(u64::MAX, 100));
        card.received.push_back(said(RING.into(), 100));
        // Shorter than its own route header, then twice the same request; then longer than its frame.
        card.received.push_back(said(first, 39));
        card.received.push_back(said(first, 100));
        let (second, ..) = card.receives[1];
        card.received.push_back(said(second, u32::MAX));
        card.sent.push_back(done(3, WcStatus::Success));
        card.sent.push_back(done(u64::MAX, WcStatus::Success));
    }
    assert!(rig.poll().is_empty());
    assert_eq!(rig.rx().counters().totals().invalid_descriptor, 5);
    rig.send(&[frame(1)]);
    rig.send(&[]);
    assert_eq!(rig.queue.as_ref().unwrap().sent.totals().invalid_descriptor, 2);
    assert_eq!(rig.status.report().restarts, 0);
    rig.end();
}

#[test]
fn a_receive_that_failed_sets_the_queue_pair_up_again() {
    for (status, counted) in [
        (WcStatus::Other(4), (1, 0)),
        (WcStatus::LengthError, (0, 1)),
        (WcStatus::Flushed, (0, 0)),
    ] {
        let mut rig = rig();
        rig.send(&[frame(9), frame(8)]);
        rig.model.deliver(PEER, &frame(1));
        rig.model.end_receive(status);
        rig.model.deliver(PEER, &frame(2));
        // What arrived before and after is not lost with it.
        assert_eq!(rig.poll(), [frame(1), frame(2)], "{status:?}");
        let totals = rig.rx().counters().totals();
        assert_eq!((totals.device_error, totals.too_long), counted, "{status:?}");
        let report = rig.status.report();
        assert_eq!((report.state, report.restarts), (State::Up, 1));
        assert!(report.why.is_some());
        // What was to be sent went with the queue pair, and was counted.
        let queue = Arc::clone(rig.queue.as_ref().unwrap());
        assert_eq!((queue.tx().under_way(), queue.sent.totals().device_error), (0, 2));
        drop(queue);
        {
            let card = rig.model.card();
            assert!(card.running && card.resets == 1 && card.receives.len() == RING as usize);
        }
        rig.model.deliver(PEER, &frame(3));
        assert_eq!(rig.poll(), [frame(3)]);
        assert_eq!(rig.send(&[frame(4)]), 1);
        rig.end();
    }
}

#[test]
fn a_send_that_failed_sets_the_queue_pair_up_again_also_when_nobody_polls() {
    let mut rig = rig();
    rig.send(&[frame(1), frame(2)]);
    rig.model.end_sends(WcStatus::Other(2));
    rig.send(&[]);
    assert_eq!(rig.queue.as_ref().unwrap().sent.totals().device_error, 1);
    assert_eq!(rig.send(&[frame(3)]), 1);
    assert_eq!(rig.status.report().restarts, 1);
    assert_eq!(rig.model.card().sends.len(), 1);
    rig.end();
}

#[test]
fn completions_of_before_a_reset_are_not_taken_for_new_ones() {
    let mut rig = rig();
    let (first, ..) = rig.model.card().receives[0];
    rig.model.end_receive(WcStatus::Other(4));
    // A card that fails late: after its completion queue looked empty, before the reset.
    rig.queue.as_ref().unwrap().fail("a test");
    rig.model.card().received.push_back(Completion {
        id: first,
        status: WcStatus::Success,
        len: 100,
        from: PEER,
        has_route_header: true,
    });
    rig.send(&[]);
    assert_eq!(rig.status.report().restarts, 1);
    assert!(rig.poll().is_empty(), "its frame is another's by now");
    rig.end();
}

#[test]
fn a_queue_pair_that_cannot_be_set_up_again_is_gone() {
    let mut rig = rig();
    rig.model.end_receive(WcStatus::Other(4));
    rig.model.card().refuses = Some(5);
    assert!(rig.poll().is_empty());
    let report = rig.status.report();
    assert_eq!(report.state, State::Gone);
    assert!(report.why.unwrap().contains("state=RESET"));
    assert_eq!(rig.rx().state(), State::Gone);
    assert_eq!(rig.send(&[frame(1)]), 0);
    // It did not say that it was taken away, so it may still write where it was to.
    let frames = rig.umem.frames() as usize;
    assert_eq!(frames - rig.free(), RING as usize - 1);
}

#[test]
fn what_happens_to_the_card_is_heard() {
    for (event, state) in [
        (Event::DeviceGone, State::Gone),
        (Event::CompletionQueueOverrun, State::Gone),
        (Event::PortDown(0), State::Down),
        (Event::PortDown(2), State::Up),
        (Event::Other(11), State::Up),
    ] {
        let mut rig = rig();
        rig.model.card().events.push_back(event);
        rig.hear();
        assert_eq!(rig.rx().state(), state, "{event:?}");
        rig.model.card().events.push_back(Event::PortUp(0));
        rig.hear();
        let after = if state == State::Gone { state } else { State::Up };
        assert_eq!(rig.rx().state(), after, "{event:?}");
        rig.end();
    }
}

#[test]
fn a_loop_that_is_about_to_sleep_misses_no_frame() {
    let mut rig = rig();
    // One that came before the queue was armed is kept for the next poll.
    rig.model.deliver(PEER, &frame(1));
    assert!(!rig.rx().prepare_to_wait());
    assert_eq!(rig.poll(), [frame(1)]);
    // Armed still: nothing has been raised.
    assert!(rig.rx().prepare_to_wait());
    rig.model.deliver(PEER, &frame(2));
    assert_eq!(rig.model.card().raised, 1);
    assert_eq!(rig.poll(), [frame(2)]);
    assert!(rig.rx().prepare_to_wait());
    let card = rig.model.card();
    assert!(
        card.raised == 0 && card.armed,
        "the event was taken, and the queue armed anew"
    );
    drop(card);
    rig.end();
}

#[test]
fn a_pool_that_runs_dry_is_counted_and_filled_up_later() {
    let mut rig = rig_of(RING + 8);
    for number in 0..40 {
        rig.model.deliver(PEER, &frame(number));
    }
    assert_eq!(rig.poll().len(), 32);
    assert!(rig.rx().is_starving());
    assert!(rig.rx().counters().totals().no_frames > 0);
    // The batch's frames go back with the next poll.
    while rig.rx().is_starving() {
        rig.poll();
    }
    rig.batch.clear();
    rig.poll();
    assert!(rig.model.card().receives.len() >= RING as usize - RING as usize / 4);
    rig.end();
}

#[test]
fn frames_that_no_datagram_takes_are_refused() {
    let mut rig = rig();
    rig.send(&[vec![1; 1024], vec![1; 1025], vec![1; 13]]);
    let totals = rig.queue.as_ref().unwrap().sent.totals();
    assert_eq!((totals.sent, totals.too_long, totals.handler_invalid), (1, 1, 1));
    assert_eq!(rig.tx.as_ref().unwrap().mtu().unwrap().get(), 1010);
    rig.batch.clear();
    assert_eq!(rig.batch.verdict(0), None::<Verdict>);
    rig.end();
}
