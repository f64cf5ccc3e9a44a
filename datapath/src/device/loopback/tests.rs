//! Null and pair ports, by their traits alone.

use std::collections::HashSet;
use std::time::Duration;

use bifurcate_linux::event::{Interest, wait_one};

use super::{NullConfig, Order, null, pair};
use crate::filter::{Instruction, Program};
use crate::frame::{Batch, Pages, UmemConfig};

const UMEM: UmemConfig = UmemConfig {
    frames: 4096,
    frame_size: 2048,
    jumbo_frames: 4,
    pages: Pages::Ordinary,
};

fn config(order: Order) -> NullConfig {
    NullConfig {
        queues: 1,
        umem: UMEM,
        length: 64,
        order,
    }
}

/// The pool offsets of `rounds` bursts of 32, each sent before the next.
fn walk(order: Order, rounds: usize) -> (Vec<u32>, u64) {
    let mut port = null(&config(order)).unwrap();
    let counters = port.counters().remove(0);
    let mut queue = port.queues.remove(0);
    let mut batch = Batch::new(&port.umem, 32);
    let mut offsets = Vec::new();
    for _ in 0..rounds {
        assert_eq!(queue.rx.poll(&mut batch), 32);
        offsets.extend((0..32).map(|i| batch.offset(i)));
        batch.send_all(0);
        batch.sending_to(0);
        assert_eq!(queue.tx.send(&mut batch), 32);
        assert_eq!(batch.clear(), 0);
    }
    assert_eq!(counters.rx.totals().received, 32 * rounds as u64);
    assert_eq!(counters.rx.totals().received_bytes, 64 * 32 * rounds as u64);
    (offsets, counters.tx.totals().sent)
}

#[test]
fn hot_reuses_the_same_frames_and_cold_walks_through_the_pool() {
    let (hot, sent) = walk(Order::Hot, 90);
    assert_eq!(sent, 90 * 32);
    assert_eq!(hot.iter().collect::<HashSet<_>>().len(), 32);
    let (cold, sent) = walk(Order::Cold, 90);
    assert_eq!(sent, 90 * 32);
    assert_eq!(
        cold.iter().collect::<HashSet<_>>().len(),
        90 * 32,
        "no frame twice in 2880 of 4096"
    );
}

#[test]
fn every_frame_is_a_udp_datagram_with_a_good_header_checksum() {
    for order in [Order::Hot, Order::Cold] {
        let mut port = null(&config(order)).unwrap();
        let mut queue = port.queues.remove(0);
        let mut batch = Batch::new(&port.umem, 256);
        assert_eq!(queue.rx.poll(&mut batch), 256);
        for i in 0..256 {
            let bytes = batch.bytes(i);
            assert_eq!(bytes.len(), 64);
            assert_eq!(bytes[12..14], [8, 0]);
            assert_eq!(bytes[23], 17);
            let sum: u32 = bytes[14..34]
                .chunks(2)
                .map(|b| u32::from(b[0]) << 8 | u32::from(b[1]))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }
}

#[test]
fn a_null_port_that_cannot_be_is_refused() {
    let refused = |change: fn(&mut NullConfig)| {
        let mut config = config(Order::Cold);
        change(&mut config);
        null(&config).err().map(|e| e.code())
    };
    assert_eq!(refused(|_| ()), None);
    assert_eq!(refused(|c| c.queues = 0).as_deref(), Some("EINVAL"));
    assert_eq!(refused(|c| c.length = 0).as_deref(), Some("EINVAL"));
    assert_eq!(refused(|c| c.length = 1793).as_deref(), Some("EINVAL"));
    assert_eq!(refused(|c| c.queues = 3).as_deref(), Some("EINVAL"));
}

#[test]
fn a_pair_carries_packets_of_any_length_and_wakes_the_receiver() {
    let (mut a, mut b) = pair(2, &UMEM, 10).unwrap();
    let (mut near, mut far) = (Batch::new(&a.umem, 32), Batch::new(&b.umem, 32));
    let (left, right) = (&mut a.queues[1], &mut b.queues[1]);
    let readable = |queue: &dyn crate::device::RxQueue| {
        wait_one(queue.ready_fd().unwrap(), Interest::Read, Some(Duration::ZERO))
            .unwrap()
            .read
    };
    assert!(!readable(&*right.rx));
    for length in [0, 1, 60, 1792, 9000] {
        let frame = near.cache_mut().copy_in(&vec![7; length]).unwrap();
        near.push_send(frame, 0).unwrap();
    }
    assert_eq!(left.tx.send(&mut near), 5);
    assert!(readable(&*right.rx));
    assert_eq!(right.rx.poll(&mut far), 5);
    let lengths: Vec<usize> = (0..5).map(|i| far.bytes(i).len()).collect();
    assert_eq!(lengths, [0, 1, 60, 1792, 9000]);
    assert!(!readable(&*right.rx));
    // The other queue's wire is another wire.
    assert_eq!(b.queues[0].rx.poll(&mut far), 0);
}

#[test]
fn a_wire_that_is_full_loses_the_senders_frames_counted() {
    let (mut a, _b) = pair(1, &UMEM, 10).unwrap();
    let mut batch = Batch::new(&a.umem, 32);
    batch.fill_free(15, 60);
    batch.send_all(0);
    batch.sending_to(0);
    assert_eq!(a.queues[0].tx.send(&mut batch), 10);
    assert_eq!(a.queues[0].tx.counters().totals().ring_full, 5);
}

#[test]
fn a_null_port_without_free_frames_says_so() {
    let mut port = null(&config(Order::Hot)).unwrap();
    let mut queue = port.queues.remove(0);
    let mut batch = Batch::new(&port.umem, 256);
    let mut held = Vec::new();
    while queue.rx.poll(&mut batch) > 0 {
        held.extend((0..batch.len()).filter_map(|i| batch.take(i)));
        batch.clear();
    }
    assert_eq!(held.len(), 4096);
    assert!(queue.rx.counters().totals().no_frames > 0);
    for frame in held {
        batch.cache_mut().give(frame);
    }
    assert_eq!(queue.rx.poll(&mut batch), 256);
}

/// The datagram is what a filter program for its port wants.
#[test]
fn a_filter_program_finds_the_datagram() {
    let op = |code, k| Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    // ldh [36]; ret a: the destination port.
    let program = Program::new(&[op(0x28, 36), op(0x16, 0)]).unwrap();
    let mut port = null(&config(Order::Hot)).unwrap();
    let mut batch = Batch::new(&port.umem, 1);
    port.queues[0].rx.poll(&mut batch);
    assert_eq!(program.run(batch.bytes(0)), 9);
}
