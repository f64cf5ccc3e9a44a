//! What a malicious driver writes into its rings, of either layout: it harms its own port, and the port counts it.

mod ends;
mod front_end;
mod place;
mod rings;

use std::sync::Arc;

use bifurcate_datapath::device::{Port, State};
use bifurcate_datapath::frame::Batch;
use bifurcate_datapath::ring::virtio::{INDIRECT, NEXT, WRITE, feature};
use ends::{Bystander, device, error_of, receive, send, still_works};
use front_end::FrontEnd;
use place::{Place, until};
use rings::{KINDS, anything};

/// What a port has counted of bad buffers: those that it read, and those that it was to write.
fn invalid(port: &Port) -> [u64; 2] {
    let pair = &port.queues[0];
    [pair.rx.counters(), pair.tx.counters()].map(|counters| counters.totals().invalid_descriptor)
}

#[test]
fn a_bad_buffer_costs_itself_and_what_no_ring_can_be_the_connection() {
    for features in KINDS {
        let place = Place::new("index");
        let (mut device, mut bystander) = (device(&place), Bystander::new());
        let mut batch = Batch::new(&device.port.umem, 32);
        let mut front = FrontEnd::agreeing(&place.0, features);
        let (at, end) = (front.buffers(), front.end());
        until("the ring", || {
            receive(&mut device.port, &mut batch);
            device.port.queues[0].rx.state() == State::Up
        });
        let mut totals = |front: &mut FrontEnd, addr, len, flags| {
            let before = device.port.queues[0].rx.counters().totals();
            front.offer_at(addr, len, flags);
            receive(&mut device.port, &mut batch);
            let after = device.port.queues[0].rx.counters().totals();
            (
                after.received - before.received,
                after.invalid_descriptor - before.invalid_descriptor,
                after.too_long - before.too_long,
            )
        };
        let (packet, bad, long) = ((1, 0, 0), (0, 1, 0), (0, 0, 1));
        // Outside of memory, longer than it, empty, a header alone, to be written; tables outside of memory, cut, not
        // aligned; and a good one at last.
        for (addr, len, flags, expected) in [
            (u64::MAX - 8, 60, 0, bad),
            (end - 10, 60, 0, bad),
            (at, u32::MAX, 0, long),
            (at, 0, 0, bad),
            (at, 12, 0, bad),
            (at, 72, WRITE, bad),
            (u64::MAX - 15, 32, INDIRECT, bad),
            (end - 16, 32, INDIRECT, bad),
            (at, 0, INDIRECT, bad),
            (at, 24, INDIRECT, bad),
            (at + 4, 16, INDIRECT, bad),
            (at, u32::MAX - 15, INDIRECT, bad),
            (at, 72, 0, packet),
        ] {
            let got = totals(&mut front, addr, len, flags);
            assert_eq!(got, expected, "{addr:#x} {len} {flags} with {features:#x}");
        }
        // Tables: a piece outside of memory, a header alone, more than any frame, a table in a table, a piece to be
        // written, more pieces than any packet has; and a good one.
        let of_packed = if features & feature::RING_PACKED == 0 {
            bad
        } else {
            packet
        };
        for (pieces, expected) in [
            (vec![(u64::MAX - 8, 60, 0)], bad),
            (vec![(at, 12, 0), (end - 10, 60, 0)], bad),
            (vec![(at, 12, 0)], bad),
            (vec![(at, u32::MAX, 0); 3], long),
            // A flag that means nothing in the packed layout; one that DPDK's driver leaves in its tables there.
            (vec![(at, 12, 0), (at, 60, INDIRECT)], of_packed),
            (vec![(at, 12, WRITE), (at, 60, 0)], of_packed),
            (vec![(at, 1, 0); 65], bad),
            (vec![(at, 10, 0), (at, 20, 0), (at, 42, 0)], packet),
        ] {
            let table = front.table(&pieces);
            let got = totals(&mut front, table, 16 * pieces.len() as u32, INDIRECT);
            assert_eq!(got, expected, "{pieces:x?} with {features:#x}");
        }
        assert!(device.status.status().connected);
        front.break_ring();
        until("the look", || {
            receive(&mut device.port, &mut batch);
            device.port.queues[0].rx.state() == State::Down
        });
        let error = error_of(&device.status);
        assert!(error.contains("an index, or a chain"), "{error}");
        drop(front);
        still_works(&place, &mut device);
        bystander.moves();
    }
}

#[test]
fn a_buffer_that_cannot_be_written_costs_the_frame_that_was_to_go_there() {
    for features in KINDS {
        let place = Place::new("to-write");
        let mut device = device(&place);
        let mut batch = Batch::new(&device.port.umem, 32);
        let mut front = FrontEnd::agreeing(&place.0, features);
        let (at, end) = (front.buffers(), front.end());
        let mut sent = 0;
        until("what it gave at first", || {
            sent += send(&mut device.port, &mut batch, 32 - sent);
            sent == 32
        });
        assert_eq!(front.written().len(), 32);
        let before = invalid(&device.port)[1];
        let cases = [
            (u64::MAX - 8, 1600, WRITE),
            (end - 10, 1600, WRITE),
            (at, u32::MAX, WRITE),
            (at, 0, WRITE),
            (at, 11, WRITE),
            (at, 1600, 0),
            (end - 16, 32, WRITE | INDIRECT),
            (at, 24, INDIRECT),
        ];
        for (count, (addr, len, flags)) in (1..).zip(cases) {
            front.give_at(addr, len, flags);
            assert_eq!(
                send(&mut device.port, &mut batch, 1),
                0,
                "{addr:#x} {len} {flags}"
            );
            assert_eq!(invalid(&device.port)[1], before + count);
            assert_eq!(front.written().len(), 1, "it is given back");
        }
        let pieces = [
            vec![(at, 12, WRITE), (at, 1600, 0)],
            vec![(at, 12, WRITE), (end - 10, 60, WRITE)],
            vec![(at, 100, WRITE); 65],
        ];
        for pieces in &pieces {
            let table = front.table(pieces);
            front.give_at(table, 16 * pieces.len() as u32, INDIRECT);
            assert_eq!(send(&mut device.port, &mut batch, 1), 0, "{pieces:x?}");
            assert_eq!(front.written().len(), 1, "it is given back");
        }
        let count = before + (cases.len() + pieces.len()) as u64;
        assert_eq!(invalid(&device.port)[1], count);
        let table = front.table(&[(at, 12, WRITE), (at + 100, 30, WRITE), (at + 200, 30, WRITE)]);
        front.give_at(table, 48, INDIRECT);
        assert_eq!(send(&mut device.port, &mut batch, 1), 1);
        assert_eq!((front.written(), invalid(&device.port)[1]), (vec![72], count));
    }
}

#[test]
fn a_packet_that_was_to_go_on_in_a_bad_buffer_is_lost_and_leaves_the_good_ones() {
    for features in KINDS {
        let place = Place::new("goes-on");
        let mut device = device(&place);
        let mut batch = Batch::new(&device.port.umem, 32);
        let mut front = FrontEnd::agreeing(&place.0, features | feature::MRG_RXBUF);
        let at = front.buffers();
        let mut sent = 0;
        until("what it gave at first", || {
            sent += send(&mut device.port, &mut batch, 32 - sent);
            sent == 32
        });
        assert_eq!(front.written(), [72; 32]);
        let mut send = |length: usize| {
            let frame = batch.cache_mut().copy_in(&vec![5; length]).unwrap();
            batch.push_send(frame, 0).unwrap();
            let sent = device.port.queues[0].tx.send(&mut batch);
            batch.clear();
            let totals = device.port.queues[0].tx.counters().totals();
            (sent, totals.invalid_descriptor)
        };
        front.give_at(at, 52, WRITE);
        front.give_at(u64::MAX - 8, 1600, WRITE);
        assert_eq!(send(60), (0, 1));
        assert_eq!(front.written(), [], "the first is the device's still");
        assert_eq!(send(40), (1, 1));
        assert_eq!(front.written(), [52]);
        assert_eq!(send(40), (0, 2));
        assert_eq!(front.written().len(), 1, "the bad one is given back");
        // And as it should be: two, of which the second is not full.
        front.give_at(at, 52, WRITE);
        front.give_at(at + 100, 52, WRITE);
        assert_eq!(send(60), (1, 2));
        assert_eq!(front.written(), [52, 20]);
    }
}

/// A packed ring says by each slot's lap whether it is available: nothing else does.
#[test]
fn slots_of_the_wrong_lap_are_not_there_and_those_of_the_right_one_once() {
    let place = Place::new("laps");
    let mut device = device(&place);
    let mut batch = Batch::new(&device.port.umem, 32);
    let mut front = FrontEnd::agreeing(&place.0, feature::RING_PACKED);
    until("the ring", || {
        receive(&mut device.port, &mut batch);
        device.port.queues[0].rx.state() == State::Up
    });
    let mut all = || {
        (0..8)
            .map(|_| receive(&mut device.port, &mut batch))
            .sum::<usize>()
    };
    let wrong = [1 << 15, 1 << 15 | 1 << 7, 0];
    for flags in wrong {
        for slot in 0..64 {
            front.set_slot(slot, 0, flags);
        }
        assert_eq!(all(), 0, "{flags:#x}");
    }
    // A good one among them, and an id that the ring cannot have: the driver's own business.
    front.offer(1, 60);
    front.set_slot(0, 0xfffe, 1 << 7);
    assert_eq!(all(), 1);
    assert_eq!(
        front.slot(0),
        (0xfffe, 1 << 15 | 1 << 7),
        "used, under the name that it had"
    );
    // Three slots for one packet.
    front.offer(3, 60);
    for slot in [1, 2] {
        front.set_slot(slot, 0, NEXT | 1 << 7);
    }
    assert_eq!(all(), 1);
    assert_eq!(front.slot(1).0, front.slot(3).0, "under the name of the last");
    // All of them at once: those that are left of the first lap, and all of the second. They are empty, or what was
    // used before.
    let before = front.slot(0);
    front.lap(1, true);
    assert_eq!(all(), 0);
    front.lap(1, true);
    assert_eq!(all(), 0);
    assert_ne!(front.slot(0), before, "the driver's own word");
    front.lap(1, false);
    assert!(all() <= 4, "packets that were there before");
    front.lap(1, false);
    assert_eq!(all(), 0);
    let [read, _] = invalid(&device.port);
    let received = device.port.queues[0].rx.counters().totals().received;
    // Slot 2 still says that it goes on in slot 3.
    assert_eq!(read + received, 2 + 60 + 63, "each slot once a lap");
    assert!(device.status.status().connected);
}

/// Whatever the driver writes into its rings while the device polls them: no panic, no frame lost to the pool.
#[test]
fn a_driver_that_scribbles_over_its_rings_harms_itself_alone() {
    let mut next = anything();
    for features in KINDS {
        let place = Place::new("scribbles");
        let mut device = device(&place);
        let mut batch = Batch::new(&device.port.umem, 32);
        for round in 0..32 {
            let merging = if round % 4 < 2 { feature::MRG_RXBUF } else { 0 };
            let mut front = FrontEnd::agreeing(&place.0, features | merging);
            // The one that the device reads starts last.
            until("the rings", || {
                receive(&mut device.port, &mut batch);
                device.port.queues[0].rx.state() == State::Up
            });
            front.offer(16, 60);
            for _ in 0..200 {
                front.scribble(next(), next());
                if round % 2 == 0 {
                    front.nudge(next());
                }
                receive(&mut device.port, &mut batch);
                send(&mut device.port, &mut batch, 3);
                // As a loop does that is about to sleep, and is woken.
                device.port.queues[0].rx.prepare_to_wait();
            }
            drop(front);
            until("its end", || !device.status.status().connected);
        }
        let [read, to_write] = invalid(&device.port);
        assert!(read > 0 && to_write > 0, "with {features:#x}: {read}, {to_write}");
        still_works(&place, &mut device);
        drop(batch);
        let umem = Arc::clone(&device.port.umem);
        drop(device);
        assert_eq!(umem.in_depot().0, 1024);
    }
}
