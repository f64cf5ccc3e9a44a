//! What a broken or malicious device can do to the driver that it serves: lose its own packets, and nothing else.

mod back_end;
mod place;
mod rings;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use back_end::BackEnd;
use bifurcate_datapath::device::virtio;
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::{NUM_BUFFERS_AT, feature};
use bifurcate_datapath::vhost_user::{Link, Message, PROTOCOL_FEATURES, protocol, request};
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::stream::Stream;
use place::{Place, until};
use rings::{KINDS, anything};

/// A driver that listens for its devices and merges receive buffers, and its pool of 1,024 and 4. It uses what of rings
/// its device has.
fn merging_driver(place: &Place) -> (virtio::Opened, Arc<Umem>) {
    let umem = Umem::map(&UmemConfig {
        frames: 1024,
        frame_size: 2048,
        jumbo_frames: 4,
        pages: Pages::Ordinary,
    })
    .unwrap();
    let config = virtio::Config {
        server: true,
        without: 0,
        ..virtio::Config::new(&place.0)
    };
    (virtio::open(&config, &umem).unwrap(), umem)
}

/// The next device of the driver, when it has buffers.
fn next_device(place: &Place, features: u64, driver: &mut virtio::Opened, got: &mut Vec<Vec<u8>>) -> BackEnd {
    let mut device = BackEnd::connect(&place.0, 256, features);
    until("buffers", || {
        drain(driver, got);
        device.has(8)
    });
    assert_eq!(driver.status.status().features & features, features);
    device
}

/// A buffer with a packet that needs no other.
fn complete(packet: &[u8]) -> Vec<u8> {
    let mut all = vec![0; 12];
    all[NUM_BUFFERS_AT] = 1;
    all.extend(packet);
    all
}

fn drain(driver: &mut virtio::Opened, got: &mut Vec<Vec<u8>>) {
    let mut batch = Batch::new(&driver.port.umem, 32);
    driver.port.queues[0].rx.poll(&mut batch);
    got.extend((0..batch.len()).map(|at| batch.bytes(at).to_vec()));
}

/// Answers what a driver asks before it hands anything over, until it is gone.
fn answer(far: Stream, features: u64, protocol_features: u64, queues: u64) {
    let mut link = Link::new(far);
    loop {
        match link.receive() {
            Ok(Some(message)) => {
                let number = match message.request {
                    request::GET_FEATURES => features,
                    request::GET_PROTOCOL_FEATURES => protocol_features,
                    request::GET_QUEUE_NUM => queues,
                    _ => continue,
                };
                link.send(&Message::of_number(message.request, number).as_reply(), &[])
                    .unwrap();
            }
            Ok(None) => drop(wait_one(
                link.as_fd(),
                Interest::Read,
                Some(Duration::from_secs(10)),
            )),
            Err(_) => return,
        }
    }
}

#[test]
fn a_device_that_lacks_what_the_driver_needs_is_refused_and_told_what() {
    let both = feature::VERSION_1 | PROTOCOL_FEATURES;
    let all = both | feature::MQ;
    for (queues, features, protocol_features, pairs, why) in [
        (1, PROTOCOL_FEATURES, 0, 1, "VIRTIO_F_VERSION_1"),
        (1, both, 0, 1, "VIRTIO_F_RING_PACKED"),
        (2, feature::VERSION_1, 0, 1, "no protocol features, so one queue"),
        (2, all, 0, 2, "the device has 1 queues, 2 were"),
        (2, all, protocol::MQ, 1, "the device has 1 queues, 2 were"),
        (2, both, protocol::MQ, 2, "VIRTIO_NET_F_MQ"),
    ] {
        let (near, far) = Stream::pair().unwrap();
        let device = std::thread::spawn(move || answer(far, features, protocol_features, pairs));
        let config = virtio::Config {
            queues,
            require: if why.ends_with("PACKED") {
                feature::RING_PACKED
            } else {
                0
            },
            ..virtio::Config::new("")
        };
        let umem = Umem::map(&UmemConfig {
            frames: 1024,
            frame_size: 2048,
            jumbo_frames: 0,
            pages: Pages::Ordinary,
        });
        let error = virtio::attach(near, &config, &umem.unwrap()).err().expect(why);
        assert_eq!(error.code(), "EOPNOTSUPP", "{error}");
        assert!(error.to_string().contains(why), "{error}");
        device.join().unwrap();
    }
}

/// Bytes of a packet in a buffer that is full, after the header.
const ROOM: usize = 1536;

#[test]
fn a_device_that_goes_leaves_whole_packets_and_nothing_else() {
    for features in KINDS {
        let place = Place::new("merged");
        let (mut driver, umem) = merging_driver(&place);
        let mut got = Vec::new();
        let mut device = next_device(&place, features, &mut driver, &mut got);
        // Before the driver looks: one in one buffer, one in three, a buffer longer than it is, one of which the last is
        // missing.
        device.put_first(1, &[1; 60]);
        device.put_first(3, &[2; ROOM]);
        device.put(&[3; ROOM + 12], ROOM as u32 + 12);
        device.put(&[4; 100], 100);
        device.put(&[5; 60], ROOM as u32 + 13);
        device.put_first(3, &[6; ROOM]);
        device.put(&[7; ROOM + 12], ROOM as u32 + 12);
        drop(device);
        until("the end", || !driver.status.status().connected);
        let mut device = next_device(&place, features, &mut driver, &mut got);
        device.put_first(1, &[8; 61]);
        until("the last", || {
            drain(&mut driver, &mut got);
            got.iter().any(|bytes| bytes.contains(&8))
        });
        let merged = [&[2; ROOM][..], &[3; ROOM + 12], &[4; 100]].concat();
        assert_eq!(got, [vec![1; 60], merged, vec![8; 61]]);
        let totals = driver.port.queues[0].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (3, 2));
        drop((driver, device));
        assert_eq!(umem.in_depot(), (1024, 4), "every frame is back");
    }
}

#[test]
fn buffers_that_a_device_cannot_have_used_are_counted_though_none_comes() {
    let features = 0;
    let place = Place::new("claims");
    let (mut driver, _umem) = merging_driver(&place);
    let mut got = Vec::new();
    let mut device = next_device(&place, features, &mut driver, &mut got);
    let invalid = |driver: &virtio::Opened| driver.port.queues[0].rx.counters().totals().invalid_descriptor;
    assert_eq!(invalid(&driver), 0);
    device.claim(300);
    until("the count", || {
        drain(&mut driver, &mut got);
        invalid(&driver) > 0
    });
    device.claim(0);
    device.put_first(1, &[9; 60]);
    until("a packet", || {
        drain(&mut driver, &mut got);
        !got.is_empty()
    });
    assert_eq!(got, [vec![9; 60]], "the ring is as it was");
}

#[test]
fn a_packet_that_a_device_did_not_finish_is_lost_with_it() {
    for features in KINDS {
        let place = Place::new("unfinished");
        let (mut driver, umem) = merging_driver(&place);
        let mut got = Vec::new();
        let mut device = next_device(&place, features, &mut driver, &mut got);
        device.put_first(3, &[1; ROOM]);
        // The driver has begun to merge.
        until("a look", || {
            drain(&mut driver, &mut got);
            umem.in_depot().1 == 3
        });
        drop(device);
        until("the end", || !driver.status.status().connected);
        let mut device = next_device(&place, features, &mut driver, &mut got);
        device.put_first(1, &[2; 60]);
        device.put_first(1, &[3; 60]);
        until("the packets", || {
            drain(&mut driver, &mut got);
            got.iter().any(|bytes| bytes.contains(&3))
        });
        assert_eq!(got, [[2; 60], [3; 60]]);
        let totals = driver.port.queues[0].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (2, 1));
        // And one that nobody comes after.
        device.put_first(2, &[4; ROOM]);
        until("a look", || {
            drain(&mut driver, &mut got);
            umem.in_depot().1 == 3
        });
        drop((driver, device));
        assert_eq!(umem.in_depot(), (1024, 4), "every frame is back");
    }
}

/// Section 2.7.9: the entries that a device skips are of buffers that it has used completely.
#[test]
fn a_merged_packet_of_which_one_entry_tells_arrives_whole() {
    for features in KINDS.into_iter().filter(|kind| kind & feature::IN_ORDER != 0) {
        let place = Place::new("at-once");
        let (mut driver, umem) = merging_driver(&place);
        let mut got = Vec::new();
        let mut device = next_device(&place, features, &mut driver, &mut got);
        device.put_at_once(&[1, 2, 3], 100);
        until("the packet", || {
            drain(&mut driver, &mut got);
            !got.is_empty()
        });
        let whole = [&[1; ROOM][..], &[2; ROOM + 12], &[3; 100]].concat();
        assert!(got == [whole], "with {features:#x}: {:?}", got[0].len());
        let totals = driver.port.queues[0].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (1, 0));
        drop((driver, device));
        assert_eq!(umem.in_depot(), (1024, 4), "every frame is back");
    }
}

#[test]
fn a_buffer_is_full_when_it_was_skipped_and_no_length_says_so() {
    for features in KINDS {
        let place = Place::new("lengths");
        let (mut driver, umem) = merging_driver(&place);
        let mut got = Vec::new();
        let mut device = next_device(&place, features, &mut driver, &mut got);
        for used in [u32::MAX, u32::MAX - 1, ROOM as u32 + 13, 12, 0] {
            device.put(&complete(&[2; 60]), used);
        }
        device.put_first(1, &[4; 60]);
        until("the last", || {
            drain(&mut driver, &mut got);
            got.iter().any(|bytes| bytes.contains(&4))
        });
        assert_eq!(got, [[4; 60]], "with {features:#x}");
        let totals = driver.port.queues[0].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (1, 5));
        drop((driver, device));
        assert_eq!(umem.in_depot(), (1024, 4), "every frame is back");
    }
}

#[test]
fn a_name_that_no_buffer_has_costs_the_buffer() {
    for features in KINDS {
        let place = Place::new("names");
        let (mut driver, umem) = merging_driver(&place);
        let mut got = Vec::new();
        let mut device = next_device(&place, features, &mut driver, &mut got);
        device.put_first(1, &[1; 60]);
        // Beyond the ring, and one that is given back already.
        device.put_as(&[2; 72], 72, Some(0xfff0));
        device.put_as(&complete(&[3; 60]), 72, Some(0));
        device.put_first(1, &[4; 60]);
        until("the last", || {
            drain(&mut driver, &mut got);
            got.iter().any(|bytes| bytes.contains(&4))
        });
        assert_eq!(got, [[1; 60], [4; 60]], "with {features:#x}");
        // In order the turn says which buffer it was: the name is counted, and the buffer.
        let bad = if features & feature::IN_ORDER == 0 { 2 } else { 3 };
        let totals = driver.port.queues[0].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (2, bad));
        drop((driver, device));
        assert_eq!(umem.in_depot(), (1024, 4), "every frame is back");
    }
}

/// Whatever the device writes into the rings while the driver polls them: no panic, no frame lost to the pool.
#[test]
fn a_device_that_scribbles_over_the_rings_harms_its_own_packets_alone() {
    let mut next = anything();
    for features in KINDS {
        let place = Place::new("scribbles");
        let (mut driver, umem) = merging_driver(&place);
        let mut got = Vec::new();
        let mut batch = Batch::new(&umem, 32);
        for round in 0..16 {
            let mut device = next_device(&place, features, &mut driver, &mut got);
            for _ in 0..300 {
                device.scribble(next(), next());
                if round % 2 == 0 {
                    device.nudge(next());
                }
                drain(&mut driver, &mut got);
                got.clear();
                let pair = &mut driver.port.queues[0];
                if let Some(frame) = batch.cache_mut().copy_in(&[7; 60]) {
                    batch.push_send(frame, 0).unwrap();
                }
                pair.tx.send(&mut batch);
                batch.clear();
                // As a loop does that is about to sleep, and is woken.
                pair.rx.prepare_to_wait();
            }
            drop(device);
            until("its end", || !driver.status.status().connected);
        }
        let pair = &driver.port.queues[0];
        let invalid = [pair.rx.counters(), pair.tx.counters()].map(|c| c.totals().invalid_descriptor);
        assert!(
            invalid.iter().all(|&count| count > 0),
            "with {features:#x}: {invalid:?}"
        );
        // And the next device is served.
        let mut device = next_device(&place, features, &mut driver, &mut got);
        got.clear();
        device.put_first(1, &[8; 61]);
        until("a packet", || {
            drain(&mut driver, &mut got);
            !got.is_empty()
        });
        assert_eq!(got, [vec![8; 61]]);
        drop((driver, device, batch));
        assert_eq!(umem.in_depot(), (1024, 4), "every frame is back");
    }
}
