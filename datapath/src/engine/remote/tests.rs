//! A handler that writes what it likes into the block, over null and pair ports.

use std::sync::Arc;

use proptest::prelude::*;

use super::{BLOCK_WORDS, HEADER_WORDS, RELEASE_WORD, ROW_WORDS, RemoteQueue};
use crate::device::loopback::{NullConfig, Order, null, pair};
use crate::device::{QueueCounters, QueuePair};
use crate::engine::Out;
use crate::frame::{BATCH_MAX, Batch, Cache, Pages, Umem, UmemConfig};

const UMEM: UmemConfig = UmemConfig {
    frames: 64,
    frame_size: 2048,
    jumbo_frames: 2,
    pages: Pages::Ordinary,
};

fn word(row: usize, field: usize) -> usize {
    HEADER_WORDS + row * ROW_WORDS + field
}

fn release_word(row: usize, field: usize) -> usize {
    RELEASE_WORD + row * ROW_WORDS + field
}

/// Two ports: a queue with a remote handler, and its other end.
struct Bench {
    queue: RemoteQueue,
    counters: QueueCounters,
    peer: QueuePair,
    wire: Batch,
}

impl Bench {
    fn new() -> Bench {
        let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
        let counters = a.counters().remove(0);
        let near = a.queues.remove(0);
        let queue = RemoteQueue::new(near.rx, &a.umem, 8, vec![Out::new(near.tx, &a.umem, &a.umem)]);
        Bench {
            queue,
            counters,
            peer: b.queues.remove(0),
            wire: Batch::new(&b.umem, BATCH_MAX),
        }
    }

    fn arrive(&mut self, packets: &[&[u8]]) {
        for packet in packets {
            let frame = self.wire.cache_mut().copy_in(packet).unwrap();
            self.wire.push_send(frame, 0).unwrap();
        }
        self.wire.sending_to(0);
        assert_eq!(self.peer.tx.send(&mut self.wire), packets.len());
        self.wire.clear();
    }

    fn left(&mut self) -> Vec<Vec<u8>> {
        self.peer.rx.poll(&mut self.wire);
        let packets = (0..self.wire.len())
            .map(|i| self.wire.bytes(i).to_vec())
            .collect();
        self.wire.clear();
        packets
    }

    fn end(&mut self, row: usize, verdict: i32, len: i32, port: i32) {
        let block = self.queue.block();
        block.poke(word(row, 1), len);
        block.poke(word(row, 2), verdict);
        block.poke(word(row, 3), port);
    }

    fn invalid(&self) -> u64 {
        self.queue.counters().totals().handler_invalid
    }
}

/// Every chunk of the pool can be taken once, and no more: none is lost, none is there twice.
fn assert_whole(umem: &Arc<Umem>) {
    let mut cache = Cache::new(umem);
    let mut frames: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    frames.extend(std::iter::from_fn(|| cache.take_jumbo()));
    let mut chunks: Vec<_> = frames
        .iter()
        .map(|f| umem.chunk_of(f.offset()).unwrap())
        .collect();
    for frame in frames {
        cache.give(frame);
    }
    chunks.sort_unstable();
    assert_eq!(
        chunks,
        (0..umem.frames() + umem.jumbo_frames()).collect::<Vec<_>>()
    );
}

#[test]
fn rows_say_where_frames_are_and_verdicts_are_done_on_the_next_turn() {
    let mut bench = Bench::new();
    bench.arrive(&[&[1; 60], &[2; 61], &[3; 62]]);
    assert_eq!(bench.queue.turn(), 3);
    let block = bench.queue.block();
    assert_eq!(block.peek(0), 3);
    for (row, len) in [(0, 60), (1, 61), (2, 62)] {
        assert_eq!(block.peek(word(row, 1)), len);
        assert_eq!(block.peek(word(row, 2)), 0);
        assert_eq!(block.peek(word(row, 5)), -1);
    }
    bench.end(0, 1, 60, 0);
    bench.end(2, 1, 20, 0);
    assert_eq!(bench.queue.turn(), 0);
    assert_eq!(bench.left(), [vec![1; 60], vec![3; 20]]);
    assert_eq!(bench.queue.counters().totals().dropped, 1);
    assert_eq!(bench.invalid(), 0);
    assert_eq!(bench.counters.tx.totals().sent, 2);
}

#[test]
fn verdicts_of_the_last_batch_are_not_those_of_the_next() {
    let mut bench = Bench::new();
    bench.arrive(&[&[1; 60]]);
    assert_eq!(bench.queue.turn(), 1);
    bench.end(0, 1, 60, 0);
    bench.arrive(&[&[2; 60]]);
    assert_eq!(bench.queue.turn(), 1);
    assert_eq!(bench.left(), [vec![1; 60]]);
    assert_eq!(bench.queue.turn(), 0);
    assert!(bench.left().is_empty());
}

#[test]
fn what_cannot_be_is_dropped_and_counted() {
    let bad = [
        (4, 60, 0),
        (-1, 60, 0),
        (1, 60, 1),
        (1, 60, -1),
        (1, 60, 256),
        (1, 13, 0),
        (1, 0, 0),
        (1, -1, 0),
        (1, i32::MAX, 0),
        (1, 1793, 0),
        (2, 1793, 0),
        (3, i32::MIN, 0),
    ];
    let mut bench = Bench::new();
    for (count, (verdict, len, port)) in bad.into_iter().enumerate() {
        bench.arrive(&[&[1; 60]]);
        assert_eq!(bench.queue.turn(), 1);
        bench.end(0, verdict, len, port);
        assert_eq!(bench.queue.turn(), 0);
        assert_eq!(bench.invalid(), count as u64 + 1, "{verdict} {len} {port}");
        assert!(bench.left().is_empty(), "{verdict} {len} {port}");
    }
    assert_eq!(bench.queue.kept(), 0);
    // The longest that fits is sent.
    bench.arrive(&[&[1; 60]]);
    bench.queue.turn();
    bench.end(0, 1, 1792, 0);
    bench.queue.turn();
    assert_eq!(bench.left()[0].len(), 1792);
}

#[test]
fn a_kept_frame_is_the_handlers_until_it_is_released_once() {
    let mut bench = Bench::new();
    bench.arrive(&[&[1; 60], &[2; 60], &[3; 60]]);
    assert_eq!(bench.queue.turn(), 3);
    let offsets: Vec<i32> = (0..3).map(|row| bench.queue.block().peek(word(row, 0))).collect();
    for row in 0..3 {
        bench.end(row, 3, 60, 0);
    }
    assert_eq!(bench.queue.turn(), 0);
    assert_eq!(bench.queue.kept(), 3);
    assert!(bench.left().is_empty());
    // All other frames go round many times; the kept ones are not touched.
    for _ in 0..100 {
        bench.arrive(&[[9; 60].as_slice(); 8]);
        assert_eq!(bench.queue.turn(), 8);
        for row in 0..8 {
            assert!(!offsets.contains(&bench.queue.block().peek(word(row, 0))));
        }
    }
    bench.queue.turn();
    let block = bench.queue.block().clone();
    // Send the second, drop the first, name the second again, name what never was kept.
    let rows = [
        (offsets[1], 30, 1),
        (offsets[0], 60, 0),
        (offsets[1], 60, 1),
        (5, 60, 1),
        (-7, 60, 1),
        (i32::MAX, 60, 0),
    ];
    for (row, (offset, len, verdict)) in rows.into_iter().enumerate() {
        block.poke(release_word(row, 0), offset);
        block.poke(release_word(row, 1), len);
        block.poke(release_word(row, 2), verdict);
    }
    block.poke(1, rows.len() as i32);
    let before = bench.invalid();
    bench.queue.turn();
    assert_eq!(bench.left(), [vec![2; 30]]);
    assert_eq!(bench.invalid() - before, 4);
    assert_eq!(bench.queue.kept(), 1);
    assert_eq!(block.peek(1), 0);
    let umem = Arc::clone(bench.queue.umem());
    drop(bench);
    assert_whole(&umem);
}

#[test]
fn a_batch_of_one_kind_is_judged_as_its_frames_are() {
    // Verdict, length and port of all four frames, then of the last one; how many leave, how many are wrong.
    let whole = (1, 60, 0);
    for (all, last, sent, wrong) in [
        (whole, whole, 4, 0),
        (whole, (1, 59, 0), 4, 0),
        (whole, (1, 13, 0), 3, 1),
        (whole, (1, 60, 1), 3, 1),
        (whole, (0, 60, 0), 3, 0),
        ((1, 60, 1), (1, 60, 1), 0, 4),
        ((1, 60, -1), (1, 60, -1), 0, 4),
        ((1, 60, 256), (1, 60, 256), 0, 4),
        ((0, 60, 0), (0, 60, 0), 0, 0),
        ((0, 60, 9), whole, 1, 0),
        ((9, 60, 0), (9, 60, 0), 0, 4),
    ] {
        let mut bench = Bench::new();
        bench.arrive(&[&[1; 60], &[2; 60], &[3; 60], &[4; 60]]);
        bench.queue.turn();
        for row in 0..4 {
            let (verdict, len, port) = if row == 3 { last } else { all };
            bench.end(row, verdict, len, port);
        }
        bench.queue.turn();
        assert_eq!(
            (bench.left().len(), bench.invalid()),
            (sent, wrong),
            "{all:?} {last:?}"
        );
    }
    // Frames that are too short to be sent, however alike.
    let mut bench = Bench::new();
    bench.arrive(&[&[1; 13], &[2; 13]]);
    bench.queue.turn();
    bench.end(0, 1, 13, 0);
    bench.end(1, 1, 13, 0);
    bench.queue.turn();
    assert_eq!((bench.left().len(), bench.invalid()), (0, 2));
}

#[test]
fn kept_frames_are_counted_while_they_are_kept() {
    let mut bench = Bench::new();
    let counters = Arc::clone(bench.queue.counters());
    bench.arrive(&[&[1; 60], &[2; 60], &[3; 60]]);
    bench.queue.turn();
    let first = bench.queue.block().peek(word(0, 0));
    for row in 0..3 {
        bench.end(row, 3, 60, 0);
    }
    bench.queue.turn();
    assert_eq!(counters.totals().kept, 3);
    let block = bench.queue.block();
    block.poke(release_word(0, 0), first);
    block.poke(release_word(0, 1), 60);
    block.poke(release_word(0, 2), 1);
    block.poke(1, 1);
    bench.queue.turn();
    assert_eq!(counters.totals().kept, 2);
    // What is left goes back to the pool when the queue is taken apart, and has ended then.
    let (rx, outs) = bench.queue.into_parts();
    assert_eq!((counters.totals().kept, counters.totals().dropped), (0, 2));
    drop((rx, outs));
}

#[test]
fn a_kept_jumbo_frame_comes_back_too() {
    let mut bench = Bench::new();
    bench.arrive(&[&[5; 9000]]);
    assert_eq!(bench.queue.turn(), 1);
    let offset = bench.queue.block().peek(word(0, 0));
    bench.end(0, 3, 9000, 0);
    bench.queue.turn();
    let block = bench.queue.block();
    block.poke(release_word(0, 0), offset);
    block.poke(release_word(0, 1), 9000);
    block.poke(release_word(0, 2), 1);
    block.poke(1, 1);
    bench.queue.turn();
    assert_eq!(bench.left(), [vec![5; 9000]]);
}

#[test]
fn a_count_of_releases_that_cannot_be_is_counted_and_ignored() {
    let mut bench = Bench::new();
    for count in [-1, 257, i32::MIN, i32::MAX] {
        bench.queue.block().poke(1, count);
        bench.queue.turn();
        assert_eq!(bench.queue.block().peek(1), 0);
    }
    assert_eq!(bench.invalid(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever words a handler writes, wherever: nothing panics, and no chunk is lost or there twice.
    #[test]
    fn no_block_breaks_the_pool(
        turns in proptest::collection::vec(
            proptest::collection::vec((0..BLOCK_WORDS, prop_oneof![
                3 => 0..4i32,
                3 => (0..64i32).prop_map(|chunk| chunk * 2048 + 256),
                2 => 0..2000i32,
                1 => any::<i32>(),
            ]), 0..60),
            1..12,
        ),
        aimed in proptest::collection::vec((0..8usize, 0..5i32, 0..1900i32, -1..2i32), 0..40),
    ) {
        let config = NullConfig { queues: 1, umem: UMEM, length: 64, order: Order::Hot };
        let mut port = null(&config).unwrap();
        let pair = port.queues.remove(0);
        let outs = vec![Out::new(pair.tx, &port.umem, &port.umem)];
        let mut queue = RemoteQueue::new(pair.rx, &port.umem, 8, outs);
        let mut aimed = aimed.into_iter();
        for words in turns {
            let rows = queue.turn();
            prop_assert!(rows <= 8);
            let block = queue.block();
            for (row, verdict, len, out) in aimed.by_ref().take(4) {
                block.poke(word(row, 1), len);
                block.poke(word(row, 2), verdict);
                block.poke(word(row, 3), out);
            }
            for (at, value) in words {
                block.poke(at, value);
            }
        }
        queue.end_batch();
        let (rx, outs) = queue.into_parts();
        drop((rx, outs));
        assert_whole(&port.umem);
    }
}
