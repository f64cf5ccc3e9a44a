//! The driver and the device end against each other, over a socket, in one process: every layout and option.

mod front_end;
mod place;

use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::device::vhost;
use bifurcate_datapath::device::virtio;
use bifurcate_datapath::device::{QueuePair, State};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::feature;
use bifurcate_datapath::vhost_user::PROTOCOL_FEATURES;
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::stream::Stream;
use front_end::FrontEnd;
use place::{Place, until};

fn pool(jumbo_frames: u32) -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 2048,
        frame_size: 2048,
        jumbo_frames,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

/// A driver and a device that are connected.
struct Ends {
    driver: virtio::Opened,
    device: vhost::Opened,
}

fn connect(config: &virtio::Config, jumbo_frames: u32) -> Ends {
    let (near, far) = Stream::pair().unwrap();
    let device = vhost::attach(far, config.queues, &pool(jumbo_frames)).unwrap();
    let driver = virtio::attach(near, config, &pool(jumbo_frames)).unwrap();
    Ends { driver, device }
}

fn payload(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 7 + seed * 31 + at / 256) as u8)
        .collect()
}

/// Sends packets of these lengths from one end to the other, and says what arrives.
fn carry(
    from: &mut QueuePair,
    from_batch: &mut Batch,
    to: &mut QueuePair,
    to_batch: &mut Batch,
    lengths: &[usize],
) {
    let mut got = Vec::new();
    for (chunk, lengths) in lengths.chunks(16).enumerate() {
        // The receiver has given buffers by then.
        to.rx.poll(to_batch);
        from.rx.poll(from_batch);
        for (at, &length) in lengths.iter().enumerate() {
            let bytes = payload(length, chunk * 16 + at);
            let frame = from_batch.cache_mut().copy_in(&bytes).expect("a free frame");
            from_batch.push_send(frame, 0).unwrap();
        }
        assert_eq!(from.tx.send(from_batch), lengths.len());
        from_batch.clear();
        until("the burst", || {
            // As a loop does when it has nothing to send.
            to.tx.send(to_batch);
            to.rx.poll(to_batch);
            got.extend((0..to_batch.len()).map(|at| to_batch.bytes(at).to_vec()));
            to_batch.clear();
            got.len() >= chunk * 16 + lengths.len()
        });
    }
    assert_eq!(got.len(), lengths.len());
    for (at, (got, &length)) in got.iter().zip(lengths).enumerate() {
        assert!(*got == payload(length, at), "packet {at} of {length} bytes");
    }
}

fn both_ways(ends: &mut Ends, index: usize, lengths: &[usize]) {
    let (driver, device) = (&mut ends.driver.port, &mut ends.device.port);
    let mut near = Batch::new(&driver.umem, 64);
    let mut far = Batch::new(&device.umem, 64);
    carry(
        &mut driver.queues[index],
        &mut near,
        &mut device.queues[index],
        &mut far,
        lengths,
    );
    carry(
        &mut device.queues[index],
        &mut far,
        &mut driver.queues[index],
        &mut near,
        lengths,
    );
    // And round the rings some times.
    let many: Vec<usize> = (0..1500)
        .map(|at| lengths[at % lengths.len()].min(1500))
        .collect();
    carry(
        &mut driver.queues[index],
        &mut near,
        &mut device.queues[index],
        &mut far,
        &many,
    );
    carry(
        &mut device.queues[index],
        &mut far,
        &mut driver.queues[index],
        &mut near,
        &many,
    );
}

const OPTIONS: [u64; 4] = [
    feature::RING_PACKED,
    feature::EVENT_IDX,
    feature::IN_ORDER,
    feature::INDIRECT_DESC,
];

#[test]
fn packets_travel_both_ways_with_every_combination_of_features() {
    for choice in 0..1 << OPTIONS.len() {
        let without = OPTIONS
            .iter()
            .enumerate()
            .map(|(at, bit)| if choice >> at & 1 == 0 { 0 } else { *bit })
            .sum();
        let config = virtio::Config {
            without,
            ring_size: 64,
            ..virtio::Config::new("")
        };
        let mut ends = connect(&config, 0);
        let features = ends.driver.status.status().features;
        assert_eq!(features & without, 0);
        assert_eq!(features, ends.device.status.status().features);
        both_ways(
            &mut ends,
            0,
            &[60, 64, 65, 128, 129, 1, 14, 15, 31, 32, 1500, 1522, 333],
        );
        for port in [&ends.driver.port, &ends.device.port] {
            let totals = port.counters()[0].totals();
            assert_eq!(
                (totals.invalid_descriptor, totals.ring_full),
                (0, 0),
                "without {without:#x}"
            );
            assert_eq!((totals.received, totals.sent), (1513, 1513));
        }
    }
}

/// Then nobody enables rings: they run from the start (vhost-user, "Ring states").
#[test]
fn packets_travel_without_protocol_features() {
    for without in [0, feature::RING_PACKED] {
        let config = virtio::Config {
            without: without | PROTOCOL_FEATURES,
            ..virtio::Config::new("")
        };
        let mut ends = connect(&config, 0);
        assert_eq!(ends.device.status.status().features & PROTOCOL_FEATURES, 0);
        both_ways(&mut ends, 0, &[60, 1500]);
    }
}

#[test]
fn jumbo_frames_travel_in_one_descriptor_and_arrive_merged_from_many_buffers() {
    for without in [0, feature::RING_PACKED] {
        let config = virtio::Config {
            without,
            ..virtio::Config::new("")
        };
        let mut ends = connect(&config, 8);
        assert_ne!(ends.driver.status.status().features & feature::MRG_RXBUF, 0);
        both_ways(
            &mut ends,
            0,
            &[9000, 60, 1536, 1537, 1535, 4000, 65_535, 1792, 1793],
        );
    }
}

#[test]
fn a_packet_longer_than_the_driver_has_room_for_is_counted_and_lost() {
    let mut ends = connect(&virtio::Config::new(""), 8);
    let (driver, device) = (&mut ends.driver.port.queues[0], &mut ends.device.port.queues[0]);
    let mut near = Batch::new(&ends.driver.port.umem, 64);
    let mut far = Batch::new(&ends.device.port.umem, 64);
    driver.rx.poll(&mut near);
    // Longer than a buffer, and the driver's pool has no jumbo frame left to merge into.
    let held: Vec<_> = std::iter::from_fn(|| near.cache_mut().take_jumbo()).collect();
    let frame = far.cache_mut().copy_in(&payload(9000, 1)).unwrap();
    far.push_send(frame, 0).unwrap();
    let frame = far.cache_mut().copy_in(&payload(60, 2)).unwrap();
    far.push_send(frame, 0).unwrap();
    assert_eq!(device.tx.send(&mut far), 2);
    until("the short one", || driver.rx.poll(&mut near) > 0);
    assert_eq!((near.len(), near.bytes(0)), (1, &payload(60, 2)[..]));
    assert!(driver.rx.counters().totals().no_frames > 0);
    for frame in held {
        near.cache_mut().give(frame);
    }
}

#[test]
fn a_driver_that_does_not_merge_gets_whole_packets_alone() {
    for without in [0, feature::RING_PACKED] {
        let config = virtio::Config {
            without,
            ..virtio::Config::new("")
        };
        let (near, far) = Stream::pair().unwrap();
        let mut device = vhost::attach(far, 1, &pool(8)).unwrap();
        // Without jumbo frames it has nothing to merge into, and does not ask for that.
        let mut driver = virtio::attach(near, &config, &pool(0)).unwrap();
        assert_eq!(driver.status.status().features & feature::MRG_RXBUF, 0);
        let (driver, device) = (&mut driver.port, &mut device.port);
        let mut near = Batch::new(&driver.umem, 256);
        let mut far = Batch::new(&device.umem, 256);
        driver.queues[0].rx.poll(&mut near);
        // One byte more than a buffer of the driver's holds, and many more; then as many that fit as the ring has
        // buffers: the long ones have taken none.
        let lengths: Vec<usize> = [1537, 9000].into_iter().chain(60..315).collect();
        for chunk in [&lengths[..3], &lengths[3..]] {
            for &length in chunk {
                let frame = far.cache_mut().copy_in(&payload(length, length)).unwrap();
                far.push_send(frame, 0).unwrap();
            }
            device.queues[0].tx.send(&mut far);
            far.clear();
        }
        let frame = far.cache_mut().copy_in(&payload(1536, 1)).unwrap();
        far.push_send(frame, 0).unwrap();
        assert_eq!(device.queues[0].tx.send(&mut far), 1, "the longest that fits");
        let totals = device.queues[0].tx.counters().totals();
        assert_eq!((totals.too_long, totals.sent, totals.ring_full), (2, 256, 0));
        let mut expected: Vec<_> = lengths[2..]
            .iter()
            .map(|&length| payload(length, length))
            .collect();
        expected.push(payload(1536, 1));
        let mut got = Vec::new();
        until("all of them", || {
            driver.queues[0].rx.poll(&mut near);
            got.extend((0..near.len()).map(|at| near.bytes(at).to_vec()));
            near.clear();
            got.len() >= expected.len()
        });
        assert!(got == expected, "without {without:#x}");
        let totals = driver.queues[0].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (256, 0));
    }
}

#[test]
fn a_packet_longer_than_all_buffers_of_the_ring_is_too_long_and_not_waited_with() {
    let config = virtio::Config {
        ring_size: 4,
        ..virtio::Config::new("")
    };
    let mut ends = connect(&config, 8);
    let (driver, device) = (&mut ends.driver.port.queues[0], &mut ends.device.port.queues[0]);
    let mut near = Batch::new(&ends.driver.port.umem, 64);
    let mut far = Batch::new(&ends.device.port.umem, 64);
    driver.rx.poll(&mut near);
    for length in [9000, 6000] {
        let frame = far.cache_mut().copy_in(&payload(length, 1)).unwrap();
        far.push_send(frame, 0).unwrap();
    }
    assert_eq!(device.tx.send(&mut far), 1);
    let totals = device.tx.counters().totals();
    assert_eq!((totals.too_long, totals.ring_full), (1, 0));
    until("the shorter one", || driver.rx.poll(&mut near) > 0);
    assert!(near.bytes(0) == payload(6000, 1));
}

/// Chains take several slots each, so that a ring has room for fewer of them than it has slots.
#[test]
fn a_packet_longer_than_all_chains_of_the_ring_is_too_long_and_not_waited_with() {
    for features in [0, feature::RING_PACKED] {
        let place = Place::new("chains");
        let mut device = vhost::open(&vhost::Config::new(&place.0), &pool(8)).unwrap();
        let mut front = FrontEnd::agreeing(&place.0, features | feature::MRG_RXBUF);
        let mut batch = Batch::new(&device.port.umem, 64);
        let tx = &mut device.port.queues[0].tx;
        let mut send = |length: usize| {
            let frame = batch.cache_mut().copy_in(&payload(length, 1)).unwrap();
            batch.push_send(frame, 0).unwrap();
            let before = tx.counters().totals();
            let sent = tx.send(&mut batch);
            batch.clear();
            let after = tx.counters().totals();
            assert_eq!(after.invalid_descriptor, 0);
            (
                sent,
                after.too_long - before.too_long,
                after.ring_full - before.ring_full,
            )
        };
        let mut used = 0;
        until("what it gave at first", || {
            used += send(60).0;
            used == 32
        });
        let (sent, long, full) = ((1, 0, 0), (0, 1, 0), (0, 0, 1));
        assert_eq!(send(60), full, "nothing is there, and may come");
        for number in 0..31 {
            front.give_chain(number, 100);
        }
        assert_eq!(send(6389), full, "one more may come: {features:#x}");
        front.give_chain(31, 100);
        assert_eq!(send(6389), long, "there is no room for one more: {features:#x}");
        assert_eq!(send(6388), sent, "all of them: {features:#x}");
    }
}

#[test]
fn queues_are_apart_in_either_layout() {
    for (packed, queues) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let config = virtio::Config {
            queues,
            ring_size: 64,
            without: if packed { 0 } else { feature::RING_PACKED },
            ..virtio::Config::new("")
        };
        let mut ends = connect(&config, 0);
        let features = ends.driver.status.status().features;
        assert_eq!(features & feature::RING_PACKED != 0, packed);
        for index in 0..queues as usize {
            both_ways(&mut ends, index, &[60 + index]);
        }
        let layout = if packed { "packed" } else { "split " };
        println!(
            "INTEROP | driver | our device              | {layout} | single buffers | {queues} queue(s) | ok |"
        );
    }
}

#[test]
fn the_device_finds_buffers_while_a_burst_as_large_as_the_ring_is_handled() {
    for packed in [0, feature::RING_PACKED] {
        let config = virtio::Config {
            without: feature::RING_PACKED & !packed,
            ..virtio::Config::new("pair")
        };
        let mut ends = connect(&config, 0);
        let (driver, device) = (&mut ends.driver.port, &mut ends.device.port);
        let mut near = Batch::new(&driver.umem, 256);
        let mut far = Batch::new(&device.umem, 256);
        driver.queues[0].rx.poll(&mut near);
        let mut send = |far: &mut Batch, count: usize| {
            for at in 0..count {
                let frame = far.cache_mut().copy_in(&payload(64, at)).unwrap();
                far.push_send(frame, 0).unwrap();
            }
            let sent = device.queues[0].tx.send(far);
            far.clear();
            sent
        };
        assert_eq!(send(&mut far, 256), 256);
        for _ in 0..8 {
            // However many the driver has in its hands, as many may come.
            let got = driver.queues[0].rx.poll(&mut near);
            assert!(got >= 32, "{got}");
            assert_eq!(send(&mut far, got), got);
            near.clear();
        }
    }
}

#[test]
fn a_frame_that_begins_where_its_chunk_does_is_sent_by_an_indirect_table_or_a_copy() {
    for without in [0, feature::RING_PACKED, feature::INDIRECT_DESC] {
        let config = virtio::Config {
            without,
            ..virtio::Config::new("")
        };
        let mut ends = connect(&config, 0);
        let (driver, device) = (&mut ends.driver.port.queues[0], &mut ends.device.port.queues[0]);
        let mut near = Batch::new(&ends.driver.port.umem, 64);
        let mut far = Batch::new(&ends.device.port.umem, 64);
        let mut frame = near.cache_mut().copy_in(&payload(300, 3)).unwrap();
        assert!(near.cache().move_start(&mut frame, -256));
        let expected = near.cache().bytes(&frame).to_vec();
        assert_eq!(expected.len(), 556);
        near.push_send(frame, 0).unwrap();
        assert_eq!(driver.tx.send(&mut near), 1);
        until("the frame", || device.rx.poll(&mut far) > 0);
        assert_eq!(far.bytes(0), expected);
    }
}

#[test]
fn a_sleeper_at_either_end_is_woken_and_a_poller_is_let_be() {
    for without in [
        0,
        feature::RING_PACKED,
        feature::EVENT_IDX,
        feature::EVENT_IDX | feature::RING_PACKED,
    ] {
        let config = virtio::Config {
            without,
            ..virtio::Config::new("")
        };
        let mut ends = connect(&config, 0);
        let mut near = Batch::new(&ends.driver.port.umem, 64);
        let mut far = Batch::new(&ends.device.port.umem, 64);
        let (driver, device) = (&mut ends.driver.port.queues[0], &mut ends.device.port.queues[0]);
        driver.rx.poll(&mut near);
        device.rx.poll(&mut far);
        let is_woken = |pair: &QueuePair| {
            let fd = pair.rx.ready_fd().unwrap();
            wait_one(fd, Interest::Read, Some(Duration::ZERO)).unwrap().any()
        };
        trip(driver, &mut near, device, &mut far, &is_woken);
        trip(device, &mut far, driver, &mut near, &is_woken);
    }
}

fn trip(
    from: &mut QueuePair,
    from_batch: &mut Batch,
    to: &mut QueuePair,
    to_batch: &mut Batch,
    is_woken: &dyn Fn(&QueuePair) -> bool,
) {
    let mut send = |from: &mut QueuePair| {
        let frame = from_batch.cache_mut().copy_in(&payload(60, 0)).unwrap();
        from_batch.push_send(frame, 0).unwrap();
        assert_eq!(from.tx.send(from_batch), 1);
        from_batch.clear();
    };
    while !to.rx.prepare_to_wait() {
        to.rx.poll(to_batch);
    }
    assert!(!is_woken(to), "nothing has come");
    send(from);
    assert!(is_woken(to));
    assert_eq!(to.rx.poll(to_batch), 1);
    to_batch.clear();
    to.rx.prepare_to_wait();
    to.rx.poll(to_batch);
    // What comes before the wait is found instead of slept through.
    send(from);
    assert!(is_woken(to) || !to.rx.prepare_to_wait());
    assert_eq!(to.rx.poll(to_batch), 1);
    to_batch.clear();
}

#[test]
fn a_device_that_goes_leaves_the_driver_down_and_its_frames_intact() {
    let Ends { mut driver, device } = connect(&virtio::Config::new(""), 0);
    let mut near = Batch::new(&driver.port.umem, 64);
    driver.port.queues[0].rx.poll(&mut near);
    assert_eq!(driver.port.queues[0].rx.state(), State::Up);
    drop(device);
    until("the end", || {
        driver.port.queues[0].rx.poll(&mut near);
        driver.port.queues[0].rx.state() == State::Down
    });
    until("the news", || !driver.status.status().connected);
    drop(near);
    let umem = Arc::clone(&driver.port.umem);
    drop(driver);
    assert_eq!(umem.in_depot().0, 2048, "every frame is back");
}
