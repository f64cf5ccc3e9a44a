//! Loops over loopback ports: verdicts, filters, other pools, threads that sleep, stop and panic.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{
    Count, Discard, Forward, Handler, Lane, Options, Out, PassPath, Reflect, SharedTx, Verdict,
    borrow_senders, share, start,
};
use crate::device::loopback::{NullConfig, Order, null, pair};
use crate::device::{Port, QueuePair, RxQueue, State, TxQueue};
use crate::filter::{Instruction, Program};
use crate::frame::{BATCH_DEFAULT, BATCH_MAX, Batch, Cache, Pages, Umem, UmemConfig};

const UMEM: UmemConfig = UmemConfig {
    frames: 256,
    frame_size: 2048,
    jumbo_frames: 2,
    pages: Pages::Ordinary,
};

fn assert_whole(umem: &Arc<Umem>) {
    let mut cache = Cache::new(umem);
    let frames: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    assert_eq!(frames.len(), umem.frames() as usize);
    for frame in frames {
        cache.give(frame);
    }
}

/// One end of a pair, driven by hand.
struct Peer {
    queue: QueuePair,
    batch: Batch,
}

impl Peer {
    fn of(port: &mut Port) -> Peer {
        Peer {
            queue: port.queues.remove(0),
            batch: Batch::new(&port.umem, BATCH_MAX),
        }
    }

    fn send(&mut self, packets: &[&[u8]]) {
        for packet in packets {
            let frame = self.batch.cache_mut().copy_in(packet).unwrap();
            self.batch.push_send(frame, 0).unwrap();
        }
        self.batch.sending_to(0);
        self.queue.tx.send(&mut self.batch);
        self.batch.clear();
    }

    fn received(&mut self) -> Vec<Vec<u8>> {
        self.queue.rx.poll(&mut self.batch);
        let packets = (0..self.batch.len())
            .map(|i| self.batch.bytes(i).to_vec())
            .collect();
        self.batch.clear();
        packets
    }

    /// Waits (asleep) until `count` packets have arrived.
    fn wait_for(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let fd = self.queue.rx.ready_fd().unwrap();
            bifurcate_linux::event::wait_one(fd, bifurcate_linux::event::Interest::Read, None).unwrap();
            packets.extend(self.received());
        }
        packets
    }
}

/// Ends each frame as its first byte says: the verdict's number; 9 sends out of port 1, 8 out of port 7.
struct ByFirstByte;

impl Handler for ByFirstByte {
    fn handle(&mut self, batch: &mut Batch) {
        for i in 0..batch.len() {
            match batch.bytes(i)[0] {
                1 => batch.send(i, 0),
                2 => batch.set(i, Verdict::Pass),
                3 => batch.set(i, Verdict::Keep),
                8 => batch.send(i, 7),
                9 => batch.send(i, 1),
                _ => {}
            }
        }
    }
}

#[derive(Clone, Default)]
struct Passed(Arc<Mutex<(Vec<u8>, usize)>>);

impl PassPath for Passed {
    fn pass(&mut self, bytes: &[u8]) -> bifurcate_linux::Result<()> {
        let tag = bytes.get(1).copied().unwrap_or(255);
        if tag == 66 {
            return Err(bifurcate_linux::Error::new("test", "refused", 1));
        }
        self.0.lock().unwrap().0.push(tag);
        Ok(())
    }

    fn flush(&mut self) -> bifurcate_linux::Result<()> {
        self.0.lock().unwrap().1 += 1;
        Ok(())
    }
}

#[test]
fn every_verdict_is_done_and_counted() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let (mut c, mut d) = pair(1, &UMEM, 1000).unwrap();
    let (near, other) = (a.queues.remove(0), c.queues.remove(0));
    let outs = vec![
        Out::new(near.tx, &a.umem, &a.umem),
        Out::new(other.tx, &c.umem, &a.umem),
    ];
    let passed = Passed::default();
    let mut lane = Lane::new(near.rx, &a.umem, BATCH_DEFAULT, Box::new(ByFirstByte), outs)
        .with_pass(Box::new(passed.clone()));
    let (mut peer, mut far) = (Peer::of(&mut b), Peer::of(&mut d));
    let packets: Vec<[u8; 60]> = [
        (0, 1),
        (1, 2),
        (2, 3),
        (2, 66),
        (3, 4),
        (8, 5),
        (9, 6),
        (2, 7),
        (1, 8),
    ]
    .map(|(verdict, tag)| {
        let mut packet = [0; 60];
        packet[..2].copy_from_slice(&[verdict, tag]);
        packet
    })
    .to_vec();
    peer.send(&packets.iter().map(|p| p.as_slice()).collect::<Vec<_>>());
    assert_eq!(lane.turn(), 9);
    assert_eq!(lane.turn(), 0);
    assert_eq!(peer.received().iter().map(|p| p[1]).collect::<Vec<_>>(), [2, 8]);
    assert_eq!(far.received().iter().map(|p| p[1]).collect::<Vec<_>>(), [6]);
    assert_eq!(*passed.0.lock().unwrap(), (vec![3, 7], 1));
    let totals = lane.counters().totals();
    // Dropped: the one that said so, and the one the kernel refused.
    assert_eq!((totals.dropped, totals.passed, totals.handler_invalid), (2, 2, 2));
    drop(lane);
    assert_whole(&a.umem);
    drop(far);
    assert_whole(&c.umem);
}

#[test]
fn a_filter_passes_what_it_does_not_want_before_the_handler_sees_it() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let near = a.queues.remove(0);
    // ldb [0]; jeq #5, 0, 1; ret #1; ret #0
    let op = |code, k, jf| Instruction { code, jt: 0, jf, k };
    let program = Program::new(&[op(0x30, 0, 0), op(0x15, 5, 1), op(6, 1, 0), op(6, 0, 0)]).unwrap();
    let passed = Passed::default();
    let mut lane = Lane::new(
        near.rx,
        &a.umem,
        BATCH_DEFAULT,
        Box::new(Forward { port: 0 }),
        vec![Out::new(near.tx, &a.umem, &a.umem)],
    )
    .with_filter(program)
    .with_pass(Box::new(passed.clone()));
    let mut peer = Peer::of(&mut b);
    // A frame without a first byte gets the program's 0, as every load beyond the end does.
    peer.send(&[&[5, 1], &[4, 2], &[5, 3], &[6, 4], &[]]);
    assert_eq!(lane.turn(), 5);
    assert_eq!(peer.received(), [[5, 1], [5, 3]]);
    assert_eq!(*passed.0.lock().unwrap(), (vec![2, 4, 255], 1));
    assert_eq!(lane.counters().totals().passed, 3);
    drop(lane);
    assert_whole(&a.umem);
}

#[test]
fn reflect_swaps_macs_and_sends_back() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let near = a.queues.remove(0);
    let outs = vec![Out::new(near.tx, &a.umem, &a.umem)];
    let mut lane = Lane::new(near.rx, &a.umem, BATCH_DEFAULT, Box::new(Reflect), outs);
    let mut peer = Peer::of(&mut b);
    peer.send(&[&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0, 9], &[1; 11]]);
    assert_eq!(lane.turn(), 2);
    assert_eq!(
        peer.received(),
        [vec![2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 8, 0, 9]]
    );
    assert_eq!(lane.counters().totals().dropped, 1);
}

#[test]
fn forwarding_to_a_smaller_pool_loses_what_does_not_fit_counted() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let small = UmemConfig {
        jumbo_frames: 0,
        ..UMEM
    };
    let (mut c, mut d) = pair(1, &small, 1000).unwrap();
    let (near, other) = (a.queues.remove(0), c.queues.remove(0));
    let outs = vec![Out::new(other.tx, &c.umem, &a.umem)];
    let mut lane = Lane::new(
        near.rx,
        &a.umem,
        BATCH_DEFAULT,
        Box::new(Forward { port: 0 }),
        outs,
    );
    let (mut peer, mut far) = (Peer::of(&mut b), Peer::of(&mut d));
    peer.send(&[&[1; 9000], &[2; 1500]]);
    assert_eq!(lane.turn(), 2);
    assert_eq!(far.received(), [vec![2; 1500]]);
    assert_eq!(lane.counters().totals().too_long, 1);
    drop(lane);
    assert_whole(&a.umem);
}

#[test]
fn forwarding_between_pools_goes_on_for_longer_than_a_batch() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let (mut c, mut d) = pair(1, &UMEM, 1000).unwrap();
    let (near, other) = (a.queues.remove(0), c.queues.remove(0));
    let outs = vec![Out::new(other.tx, &c.umem, &a.umem)];
    let mut lane = Lane::new(
        near.rx,
        &a.umem,
        BATCH_DEFAULT,
        Box::new(Forward { port: 0 }),
        outs,
    );
    let (mut peer, mut far) = (Peer::of(&mut b), Peer::of(&mut d));
    for round in 0..40u8 {
        peer.send(&[[round; 60].as_slice(); 20]);
        assert_eq!(lane.turn(), 20);
        assert_eq!(far.received(), vec![vec![round; 60]; 20]);
    }
    drop((lane, far));
    assert_whole(&a.umem);
    assert_whole(&c.umem);
}

/// Receive only: sleeps in poll(2) when idle, by counting the polls.
struct Polls {
    inner: Box<dyn RxQueue>,
    polls: Arc<AtomicUsize>,
}

impl RxQueue for Polls {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        self.polls.fetch_add(1, Ordering::SeqCst);
        self.inner.poll(batch)
    }
    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.ready_fd()
    }
    fn counters(&self) -> &Arc<crate::device::Counters> {
        self.inner.counters()
    }
}

#[test]
fn a_loop_answers_while_it_runs_sleeps_when_idle_and_stops_when_told() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let near = a.queues.remove(0);
    let polls = Arc::new(AtomicUsize::new(0));
    let rx = Box::new(Polls {
        inner: near.rx,
        polls: Arc::clone(&polls),
    });
    let outs = vec![Out::new(near.tx, &a.umem, &a.umem)];
    let lane = Lane::new(rx, &a.umem, BATCH_DEFAULT, Box::new(Reflect), outs);
    let begin = Instant::now();
    let run = start(vec![lane], &Options::default()).unwrap();
    let mut peer = Peer::of(&mut b);
    for round in 0..20u8 {
        peer.send(&[&[round; 60]]);
        assert_eq!(peer.wait_for(1), [vec![round; 60]]);
    }
    // Between packets it sleeps: a packet costs a poll that finds it and one or two that do not. A sleep ends after a
    // second: on a machine that stands still meanwhile there are more of them.
    let sleeps = 20 + begin.elapsed().as_secs() as usize;
    assert!(
        polls.load(Ordering::SeqCst) <= sleeps * 4 + 4,
        "{polls:?} in {sleeps} sleeps"
    );
    assert!(!run.is_finished());
    run.stop();
    let lanes = run.join().unwrap();
    assert_eq!(lanes.len(), 1);
    drop(lanes);
    assert_whole(&a.umem);
}

#[test]
fn lanes_are_dealt_to_pinned_threads_and_share_a_transmit_queue() {
    let (mut a, mut b) = pair(3, &UMEM, 1000).unwrap();
    let (mut c, mut d) = pair(1, &UMEM, 1000).unwrap();
    let shared = share(c.queues.remove(0).tx, 3);
    let lanes = a
        .queues
        .drain(..)
        .zip(shared)
        .map(|(pair, tx)| {
            let outs = vec![Out::new(tx, &c.umem, &a.umem)];
            Lane::new(
                pair.rx,
                &a.umem,
                BATCH_DEFAULT,
                Box::new(Forward { port: 0 }),
                outs,
            )
        })
        .collect();
    let options = Options {
        cores: vec![0, 0],
        busy_poll: false,
    };
    let run = start(lanes, &options).unwrap();
    let mut far = Peer::of(&mut d);
    while !b.queues.is_empty() {
        Peer::of(&mut b).send(&[[7u8; 60].as_slice(); 5]);
    }
    assert_eq!(far.wait_for(15).len(), 15);
    drop(run);
    assert_whole(&a.umem);
    assert_whole(&c.umem);
}

#[test]
fn queues_that_cannot_send_send_by_those_that_can_which_count_it() {
    let (mut a, mut b) = pair(5, &UMEM, 1000).unwrap();
    borrow_senders(&mut a, 2);
    let counters = a.counters();
    for pair in &mut a.queues {
        let mut batch = Batch::new(&a.umem, 32);
        let frame = batch.cache_mut().copy_in(&[pair.index as u8; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
        batch.sending_to(0);
        assert_eq!(pair.tx.send(&mut batch), 1);
    }
    let sent: Vec<u64> = counters.iter().map(|queue| queue.totals().sent).collect();
    assert_eq!(sent, [3, 2, 0, 0, 0]);
    let mut far: Vec<Peer> = (0..5).map(|_| Peer::of(&mut b)).collect();
    let first = |packets: Vec<Vec<u8>>| packets.iter().map(|packet| packet[0]).collect::<Vec<u8>>();
    assert_eq!(first(far[0].received()), [0, 2, 4]);
    assert_eq!(first(far[1].received()), [1, 3]);
    assert!(far[2..].iter_mut().all(|peer| peer.received().is_empty()));
}

#[test]
fn where_all_queues_can_send_or_none_nothing_is_borrowed() {
    for senders in [0, 2, 9] {
        let (mut a, mut b) = pair(2, &UMEM, 1000).unwrap();
        borrow_senders(&mut a, senders);
        let mut batch = Batch::new(&a.umem, 32);
        let frame = batch.cache_mut().copy_in(&[1; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
        batch.sending_to(0);
        a.queues[1].tx.send(&mut batch);
        assert_eq!(a.counters()[1].totals().sent, 1);
        b.queues.remove(0);
        assert_eq!(Peer::of(&mut b).received().len(), 1);
    }
}

#[test]
fn a_shared_queue_that_is_closed_sends_nothing_more_and_frees_its_device() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let mut far = Peer::of(&mut b);
    let pool = Arc::clone(&a.umem);
    let held = Arc::clone(a.queues[0].tx.counters());
    let shared = SharedTx::new(a.queues.remove(0).tx);
    let mut clone = shared.clone();
    let mut batch = Batch::new(&pool, 32);
    let mut send = |tx: &mut SharedTx| {
        let frame = batch.cache_mut().copy_in(&[1; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
        batch.sending_to(0);
        let sent = tx.send(&mut batch);
        batch.clear();
        sent
    };
    assert_eq!((send(&mut clone), far.received().len()), (1, 1));
    shared.close();
    drop(shared);
    assert_eq!((send(&mut clone), far.received().len()), (0, 0));
    assert_eq!((held.totals().sent, held.totals().ring_full), (1, 1));
    drop(batch);
    assert_whole(&pool);
}

#[test]
fn a_core_that_does_not_exist_is_told() {
    let (mut a, _b) = pair(1, &UMEM, 1000).unwrap();
    let lane = Lane::new(a.queues.remove(0).rx, &a.umem, 32, Box::new(Discard), vec![]);
    let options = Options {
        cores: vec![9999],
        busy_poll: false,
    };
    assert_eq!(
        start(vec![lane], &options).unwrap().join().err().unwrap().code(),
        "EINVAL"
    );
    assert_eq!(start(vec![], &Options::default()).err().unwrap().code(), "EINVAL");
}

#[test]
fn lanes_come_back_in_their_order_and_also_when_their_thread_failed() {
    let (mut a, mut b) = pair(5, &UMEM, 1000).unwrap();
    let lanes = |queues: Vec<QueuePair>| -> Vec<Lane> {
        queues
            .into_iter()
            .map(|pair| Lane::new(pair.rx, &a.umem, 32, Box::new(Discard), vec![]))
            .collect()
    };
    let cores = |list: &[u32]| Options {
        cores: list.to_vec(),
        busy_poll: false,
    };
    let run = start(lanes(std::mem::take(&mut a.queues)), &cores(&[0, 9999])).unwrap();
    run.stop();
    let (back, ended) = run.take_apart();
    assert_eq!(ended.unwrap_err().code(), "EINVAL");
    let mut back: Vec<Lane> = back.into_iter().map(Option::unwrap).collect();
    // Queue n receives n + 1 frames: so each lane is known by what it counts.
    for count in 1..=5 {
        Peer::of(&mut b).send(&vec![[1u8; 60].as_slice(); count]);
    }
    let counted = |lanes: &mut [Lane]| -> Vec<usize> { lanes.iter_mut().map(Lane::turn).collect() };
    assert_eq!(counted(&mut back), [1, 2, 3, 4, 5]);
}

struct Panics;

impl Handler for Panics {
    fn handle(&mut self, _: &mut Batch) {
        panic!("on purpose");
    }
}

#[test]
fn a_handler_that_panics_is_an_error_and_loses_no_frame() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let lane = Lane::new(a.queues.remove(0).rx, &a.umem, 32, Box::new(Panics), vec![]);
    let run = start(vec![lane], &Options::default()).unwrap();
    Peer::of(&mut b).send(&[&[1; 60]]);
    let error = run.join().err().unwrap();
    assert!(error.to_string().contains("on purpose"), "{error}");
    assert_whole(&a.umem);
}

/// A device that is taken away after its third poll, and whose descriptor is never readable.
struct Vanishing {
    polls: usize,
    never: bifurcate_linux::event::EventFd,
    counters: Arc<crate::device::Counters>,
}

impl RxQueue for Vanishing {
    fn poll(&mut self, _: &mut Batch) -> usize {
        self.polls += 1;
        0
    }
    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.never))
    }
    fn state(&self) -> State {
        if self.polls < 3 { State::Down } else { State::Gone }
    }
    fn counters(&self) -> &Arc<crate::device::Counters> {
        &self.counters
    }
}

/// A device that has no room for a frame until it is called a second time, and a queue whose descriptor is never
/// readable: as a lane that forwards what came last.
struct Stuck {
    waiting: bool,
    freed: Arc<AtomicUsize>,
    counters: Arc<crate::device::Counters>,
}

impl TxQueue for Stuck {
    fn send(&mut self, _: &mut Batch) -> usize {
        if self.waiting && self.freed.fetch_add(1, Ordering::Relaxed) > 0 {
            self.waiting = false;
        }
        0
    }
    fn is_waiting(&self) -> bool {
        self.waiting
    }
    fn counters(&self) -> &Arc<crate::device::Counters> {
        &self.counters
    }
}

#[test]
fn a_lane_says_that_frames_wait_until_the_device_has_room() {
    let umem = Umem::map(&UMEM).unwrap();
    let rx = Box::new(Vanishing {
        polls: 0,
        never: bifurcate_linux::event::EventFd::new().unwrap(),
        counters: Arc::default(),
    });
    let tx: Box<dyn TxQueue> = Box::new(Stuck {
        waiting: true,
        freed: Arc::default(),
        counters: Arc::default(),
    });
    // Also behind a lock, as a queue of another port is.
    let tx = share(tx, 1).remove(0);
    let outs = vec![Out::new(tx, &umem, &umem)];
    let mut lane = Lane::new(rx, &umem, 32, Box::new(Discard), outs);
    assert!(lane.is_hurried());
    lane.turn();
    assert!(lane.is_hurried());
    lane.turn();
    assert!(!lane.is_hurried());
}

#[test]
fn a_loop_whose_device_is_gone_ends_by_itself() {
    let umem = Umem::map(&UMEM).unwrap();
    let rx = Box::new(Vanishing {
        polls: 0,
        never: bifurcate_linux::event::EventFd::new().unwrap(),
        counters: Arc::default(),
    });
    let lane = Lane::new(rx, &umem, 32, Box::new(Discard), vec![]);
    let lanes = start(vec![lane], &Options::default()).unwrap().join().unwrap();
    assert_eq!(lanes[0].state(), State::Gone);
}

#[test]
fn a_busy_loop_on_a_null_port_counts_what_it_did() {
    let config = NullConfig {
        queues: 2,
        umem: UmemConfig { frames: 4096, ..UMEM },
        length: 64,
        order: Order::Hot,
    };
    let mut port = null(&config).unwrap();
    let counters = port.counters();
    let lanes: Vec<Lane> = port
        .queues
        .drain(..)
        .map(|pair| {
            let outs = vec![Out::new(pair.tx, &port.umem, &port.umem)];
            Lane::new(pair.rx, &port.umem, BATCH_DEFAULT, Box::new(Reflect), outs)
        })
        .collect();
    let options = Options {
        cores: vec![],
        busy_poll: true,
    };
    let run = start(lanes, &options).unwrap();
    while counters.iter().any(|c| c.tx.totals().sent < 1000) {
        std::thread::yield_now();
    }
    drop(run);
    for c in counters {
        let totals = c.totals();
        assert_eq!(totals.received, totals.sent);
        assert_eq!(totals.received_bytes, totals.received * 64);
        assert_eq!(totals.sent_bytes, totals.sent * 64);
    }
    assert_whole(&port.umem);
}

#[test]
fn count_looks_and_drops() {
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let mut peer = Peer::of(&mut b);
    let mut batch = Batch::new(&a.umem, 32);
    peer.send(&[&[1; 60], &[2; 60], &[0xff; 60], &[]]);
    a.queues[0].rx.poll(&mut batch);
    let mut count = Count::default();
    count.handle(&mut batch);
    assert_eq!(count.multicast(), 2);
    assert_eq!(batch.count_of(Verdict::Drop), 4);
}
