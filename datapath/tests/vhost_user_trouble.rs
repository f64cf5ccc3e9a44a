//! What a broken or malicious other end can do to a vhost-user port: stop it, and nothing else.

mod ends;
mod front_end;
mod huge_pages;
mod place;
mod rings;

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use bifurcate_datapath::device::{State, vhost, virtio};
use bifurcate_datapath::frame::Batch;
use bifurcate_datapath::ring::virtio::feature;
use bifurcate_datapath::vhost_user::{Message, request};
use bifurcate_linux::event::EventFd;
use bifurcate_linux::memory::{MemoryFile, PageKind};
use bifurcate_linux::stream::{Listener, Stream};
use ends::{Bystander, device, error_of, pool, receive, send, still_works};
use front_end::FrontEnd;
use huge_pages::HugePages;
use place::{PATIENCE, Place, until};
use rings::KINDS;
use std::os::fd::AsFd;

#[test]
fn a_socket_that_is_missing_or_in_use_is_an_error() {
    let place = Place::new("in-use");
    let error = virtio::open(&virtio::Config::new(&place.0), &pool())
        .err()
        .unwrap();
    assert_eq!(error.code(), "ENOENT");
    let held = Listener::bind(&place.0).unwrap();
    let error = vhost::open(&vhost::Config::new(&place.0), &pool()).err().unwrap();
    assert_eq!(error.code(), "EADDRINUSE");
    // Somebody listens and never answers.
    let connected = Stream::connect(&place.0).unwrap();
    drop((held, connected));
    std::fs::write(&place.0, "").unwrap();
    let error = virtio::open(&virtio::Config::new(&place.0), &pool())
        .err()
        .unwrap();
    assert_eq!(error.code(), "ECONNREFUSED");
}

#[test]
fn features_and_queues_that_the_device_lacks_are_named() {
    for (change, why) in [
        (
            (|c| c.require = feature::RING_PACKED) as fn(&mut virtio::Config),
            "does not offer VIRTIO_F_RING_PACKED",
        ),
        (|c| c.queues = 2, "the device has 1 queues, 2 were asked for"),
    ] {
        let place = Place::new("lacks");
        let config = vhost::Config {
            without: feature::RING_PACKED,
            ..vhost::Config::new(&place.0)
        };
        let _device = vhost::open(&config, &pool()).unwrap();
        let mut config = virtio::Config::new(&place.0);
        change(&mut config);
        let error = virtio::open(&config, &pool()).err().unwrap();
        assert_eq!(error.code(), "EOPNOTSUPP");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_driver_that_sends_what_is_no_message_loses_its_connection_and_the_next_one_works() {
    let place = Place::new("no-message");
    let mut device = device(&place);
    let event = EventFd::new().unwrap();
    let number = Message::of_number(request::SET_VRING_CALL, 0).bytes();
    type Case<'a> = (&'a [u8], usize, &'a str);
    let cases: [Case<'_>; 5] = [
        (&number[..15], 0, "after 15 bytes"),
        (&number, 0, "0 descriptors"),
        (&number, 3, "3 descriptors"),
        (&[9; 12], 0, "payload"),
        (&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], 0, "version 2"),
    ];
    for (bytes, fds, why) in cases {
        let before = device.status.status().connections;
        let stream = Stream::connect(&place.0).unwrap();
        let fds = vec![event.as_fd(); fds];
        stream.send(bytes, &fds, PATIENCE).unwrap();
        until("the connection", || device.status.status().connections > before);
        if why.starts_with("after") {
            drop(stream);
        }
        let error = error_of(&device.status);
        assert!(error.contains(why), "{why}: {error}");
    }
    still_works(&place, &mut device);
}

/// Whether the device sends when it meets what is to happen, or receives; and the rings' layout.
const LAYOUTS: [(bool, u64); 4] = [
    (false, 0),
    (true, 0),
    (false, feature::RING_PACKED),
    (true, feature::RING_PACKED),
];

#[test]
fn memory_that_is_cut_off_ends_the_connection_and_the_port_takes_the_next() {
    for (sends, features) in LAYOUTS {
        let place = Place::new("cut-off");
        let (mut troubled, mut bystander) = (device(&place), Bystander::new());
        let mut batch = Batch::new(&troubled.port.umem, 32);
        let mut front = FrontEnd::agreeing(&place.0, features);
        front.offer(8, 60);
        until("the first packets", || {
            receive(&mut troubled.port, &mut batch) > 0
        });
        until("buffers", || send(&mut troubled.port, &mut batch, 1) == 1);
        front.offer(8, 60);
        front.cut();
        // The ring itself is gone as well.
        for _ in 0..10 {
            if sends {
                send(&mut troubled.port, &mut batch, 1);
            } else {
                receive(&mut troubled.port, &mut batch);
            }
        }
        let error = error_of(&troubled.status);
        assert!(error.contains("vanished"), "{error}");
        assert_eq!(receive(&mut troubled.port, &mut batch), 0);
        assert_eq!(troubled.port.queues[0].rx.state(), State::Down);
        drop(front);
        still_works(&place, &mut troubled);
        bystander.moves();
    }
}

#[test]
fn a_hole_in_huge_pages_ends_the_connection_and_the_port_takes_the_next() {
    let name = "a_hole_in_huge_pages_ends_the_connection_and_the_port_takes_the_next";
    for (sends, features) in LAYOUTS {
        let Some(mut pages) = HugePages::reserve(name, 2) else {
            return;
        };
        let place = Place::new("hole");
        let (mut troubled, mut bystander) = (device(&place), Bystander::new());
        let mut batch = Batch::new(&troubled.port.umem, 32);
        // Sealed against a change of size: a hole is what is left.
        let file = MemoryFile::create("bf-front-end", huge_pages::PAGE, PageKind::Huge).unwrap();
        let file = file.as_fd().try_clone_to_owned().unwrap();
        let mut front = FrontEnd::with(&place.0, features, file, huge_pages::PAGE);
        front.offer(8, 60);
        until("the first packets", || {
            receive(&mut troubled.port, &mut batch) > 0
        });
        until("buffers", || send(&mut troubled.port, &mut batch, 1) == 1);
        front.offer(8, 60);
        pages.punch(front.file(), huge_pages::PAGE);
        for _ in 0..10 {
            if sends {
                send(&mut troubled.port, &mut batch, 1);
            } else {
                receive(&mut troubled.port, &mut batch);
            }
        }
        front.abandon();
        let error = error_of(&troubled.status);
        assert!(error.contains("vanished"), "{error}");
        assert_eq!(receive(&mut troubled.port, &mut batch), 0);
        drop(front);
        still_works(&place, &mut troubled);
        bystander.moves();
    }
}

#[test]
fn features_said_again_leave_rings_where_they_stand() {
    for features in KINDS {
        let place = Place::new("again");
        let mut device = device(&place);
        let mut batch = Batch::new(&device.port.umem, 32);
        let mut front = FrontEnd::agreeing(&place.0, features);
        front.offer(5, 60);
        let mut got = 0;
        until("the packets before", || {
            got += receive(&mut device.port, &mut batch);
            got == 5
        });
        front.agree_again();
        front.offer(1, 60);
        until("the packet after", || {
            got += receive(&mut device.port, &mut batch);
            got > 5
        });
        assert_eq!(got, 6);
        assert!(device.status.status().connected);
    }
}

#[test]
fn a_driver_that_never_stops_talking_does_not_keep_the_port_open() {
    let place = Place::new("chatter");
    let device = device(&place);
    let mut driver = UnixStream::connect(&place.0).unwrap();
    let chatter = Message::new(request::SET_OWNER, Vec::new())
        .bytes()
        .repeat(10_000);
    let talk = std::thread::spawn(move || while driver.write_all(&chatter).is_ok() {});
    until("the driver", || device.status.status().connected);
    drop(device);
    talk.join().unwrap();
}

#[test]
fn an_end_that_stops_polling_costs_its_own_frames_alone() {
    let place = Place::new("stops");
    let mut device = device(&place);
    let mut driver = virtio::open(&virtio::Config::new(&place.0), &pool()).unwrap();
    let mut bystander = Bystander::new();
    let mut near = Batch::new(&driver.port.umem, 32);
    let mut far = Batch::new(&device.port.umem, 32);
    receive(&mut driver.port, &mut near);
    // The device does not poll: the ring fills, what finds no room is counted.
    let sent: usize = (0..20).map(|_| send(&mut driver.port, &mut near, 32)).sum();
    assert_eq!(sent, 256);
    assert_eq!(driver.port.queues[0].tx.counters().totals().ring_full, 640 - 256);
    bystander.moves();
    // The driver does not poll: the same the other way.
    let mut sent = 0;
    until("a full ring", || {
        sent += send(&mut device.port, &mut far, 32);
        device.port.queues[0].tx.counters().totals().ring_full > 0
    });
    assert_eq!(sent, 256);
    bystander.moves();
    // And both go on when they are polled again.
    let mut got = 0;
    until("the rest", || {
        got += receive(&mut device.port, &mut far);
        got == 256
    });
}

#[test]
fn frames_for_a_pair_that_the_driver_has_not_enabled_go_by_one_that_it_has() {
    let place = Place::new("pairs");
    let config = vhost::Config {
        queues: 3,
        ..vhost::Config::new(&place.0)
    };
    let mut device = vhost::open(&config, &pool()).unwrap();
    let mut batch = Batch::new(&device.port.umem, 32);
    let mut by = |index: usize| {
        let frame = batch.cache_mut().copy_in(&[7; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
        let sent = device.port.queues[index].tx.send(&mut batch);
        batch.clear();
        (sent, device.port.queues[index].tx.counters().totals().ring_full)
    };
    assert_eq!(by(2), (0, 1), "nobody is there");
    // A front end with one pair.
    let front = FrontEnd::connect(&place.0);
    until("the pair", || by(0).0 == 1);
    let full = by(2).1;
    for index in [0, 1, 2] {
        assert_eq!(by(index).0, 1, "pair {index}");
    }
    assert_eq!(by(2).1, full);
    drop(front);
}
