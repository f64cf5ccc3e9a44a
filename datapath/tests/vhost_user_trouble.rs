//! What a broken or malicious other end can do to a vhost-user port: stop it, and nothing else.

mod front_end;
mod huge_pages;
mod place;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::device::{Port, State, vhost, virtio};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::feature;
use bifurcate_datapath::vhost_user::{Inner, Message, request};
use bifurcate_linux::event::EventFd;
use bifurcate_linux::memory::{MemoryFile, PageKind};
use bifurcate_linux::stream::{Listener, Stream};
use front_end::FrontEnd;
use huge_pages::HugePages;
use place::{Place, until};
use std::os::fd::AsFd;

fn pool() -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 1024,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

fn device(place: &Place) -> vhost::Opened {
    vhost::open(&vhost::Config::new(&place.0), &pool()).unwrap()
}

fn send(port: &mut Port, batch: &mut Batch, count: usize) -> usize {
    for _ in 0..count {
        let frame = batch.cache_mut().copy_in(&[7; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    let sent = port.queues[0].tx.send(batch);
    batch.clear();
    sent
}

fn receive(port: &mut Port, batch: &mut Batch) -> usize {
    let got = port.queues[0].rx.poll(batch);
    batch.clear();
    got
}

/// Whoever was there before: an honest driver attaches to the port, and packets travel.
fn still_works(place: &Place, device: &mut vhost::Opened) {
    let mut driver = virtio::open(&virtio::Config::new(&place.0), &pool()).unwrap();
    let mut near = Batch::new(&driver.port.umem, 32);
    let mut far = Batch::new(&device.port.umem, 32);
    assert_eq!(send(&mut driver.port, &mut near, 1), 1);
    until("a packet", || receive(&mut device.port, &mut far) == 1);
}

fn error_of(status: &Inner) -> String {
    until("the end of the connection", || {
        let status = status.status();
        status.connections > 0 && !status.connected
    });
    status.status().error.unwrap_or_default()
}

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
            "features 0x400000000",
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
        stream.send(bytes, &fds, Duration::from_secs(1)).unwrap();
        until("the connection", || device.status.status().connections > before);
        if why.starts_with("after") {
            drop(stream);
        }
        let error = error_of(&device.status);
        assert!(error.contains(why), "{why}: {error}");
    }
    still_works(&place, &mut device);
}

#[test]
fn memory_that_is_cut_off_ends_the_connection_and_the_port_takes_the_next() {
    for sends in [false, true] {
        let place = Place::new("cut-off");
        let (mut troubled, mut bystander) = (device(&place), other());
        let mut batch = Batch::new(&troubled.port.umem, 32);
        let mut front = FrontEnd::connect(&place.0);
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
    for sends in [false, true] {
        let Some(mut pages) = HugePages::reserve(name, 2) else {
            return;
        };
        let place = Place::new("hole");
        let (mut troubled, mut bystander) = (device(&place), other());
        let mut batch = Batch::new(&troubled.port.umem, 32);
        // Sealed against a change of size: a hole is what is left.
        let file = MemoryFile::create("bf-front-end", huge_pages::PAGE, PageKind::Huge).unwrap();
        let file = file.as_fd().try_clone_to_owned().unwrap();
        let mut front = FrontEnd::with(&place.0, file, huge_pages::PAGE);
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
    let place = Place::new("again");
    let mut device = device(&place);
    let mut batch = Batch::new(&device.port.umem, 32);
    let mut front = FrontEnd::connect(&place.0);
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
fn an_index_that_cannot_be_ends_the_connection_and_a_bad_buffer_only_itself() {
    let place = Place::new("index");
    let mut device = device(&place);
    let mut batch = Batch::new(&device.port.umem, 32);
    let mut front = FrontEnd::connect(&place.0);
    // Outside of memory, longer than it, empty, to be written, and a good one at last.
    for (addr, len, flags) in [
        (u64::MAX - 8, 60, 0),
        (front.end() - 10, 60, 0),
        (front.buffers(), u32::MAX, 0),
        (front.buffers(), 0, 0),
        (front.buffers(), 12, 0),
        (front.buffers(), 72, 2),
        (front.buffers(), 72, 0),
    ] {
        front.offer_at(addr, len, flags);
    }
    until("the good one", || receive(&mut device.port, &mut batch) == 1);
    let totals = device.port.queues[0].rx.counters().totals();
    assert_eq!((totals.invalid_descriptor, totals.too_long), (5, 1));
    assert!(device.status.status().connected);
    front.break_index();
    until("the look", || {
        receive(&mut device.port, &mut batch);
        device.port.queues[0].rx.state() == State::Down
    });
    let error = error_of(&device.status);
    assert!(error.contains("an index"), "{error}");
    drop(front);
    still_works(&place, &mut device);
}

#[test]
fn an_end_that_stops_polling_costs_its_own_frames_alone() {
    let place = Place::new("stops");
    let mut device = device(&place);
    let mut driver = virtio::open(&virtio::Config::new(&place.0), &pool()).unwrap();
    let mut bystander = other();
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

/// Each of a length of its own, the longest in a whole frame.
fn packet(number: u8) -> Vec<u8> {
    let len = if number == 5 {
        1792
    } else {
        60 + usize::from(number)
    };
    vec![number; len]
}

#[test]
fn frames_that_wait_for_the_next_device_follow_those_that_the_last_one_left() {
    let place = Place::new("order");
    let mut first = device(&place);
    let mut driver = virtio::open(&virtio::Config::new(&place.0), &pool()).unwrap();
    let mut near = Batch::new(&driver.port.umem, 32);
    let mut far = Batch::new(&first.port.umem, 32);
    let mut numbered = |driver: &mut virtio::Opened, numbers: std::ops::Range<u8>| {
        for number in numbers.clone() {
            let frame = near.cache_mut().copy_in(&packet(number)).unwrap();
            near.push_send(frame, 0).unwrap();
        }
        assert_eq!(driver.port.queues[0].tx.send(&mut near), numbers.len());
        near.clear();
    };
    driver.port.queues[0]
        .rx
        .poll(&mut Batch::new(&driver.port.umem, 1));
    numbered(&mut driver, 0..2);
    let mut taken = 0;
    until("two frames", || {
        taken += receive(&mut first.port, &mut far);
        taken == 2
    });
    numbered(&mut driver, 2..6);
    // Nor is what the first one had sent lost, which the driver has not looked at yet.
    until("buffers", || send(&mut first.port, &mut far, 1) == 1);
    drop((far, first));
    until("the end", || !driver.status.status().connected);
    numbered(&mut driver, 6..10);
    let mut second = device(&place);
    let mut far = Batch::new(&second.port.umem, 32);
    let mut got = Vec::new();
    until("all of them", || {
        numbered(&mut driver, 0..0);
        second.port.queues[0].rx.poll(&mut far);
        got.extend((0..far.len()).map(|at| far.bytes(at).to_vec()));
        far.clear();
        got.len() >= 8
    });
    assert_eq!(got, (2..10).map(packet).collect::<Vec<_>>());
    let mut arrived = Batch::new(&driver.port.umem, 32);
    assert_eq!(receive(&mut driver.port, &mut arrived), 1);
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

/// A pair of ports that has nothing to do with the trouble.
struct Other {
    device: vhost::Opened,
    driver: virtio::Opened,
}

fn other() -> Other {
    let (near, far) = Stream::pair().unwrap();
    let device = vhost::attach(far, 1, &pool()).unwrap();
    let driver = virtio::attach(near, &virtio::Config::new(""), &pool()).unwrap();
    Other { device, driver }
}

impl Other {
    fn moves(&mut self) {
        let mut near = Batch::new(&self.driver.port.umem, 32);
        let mut far = Batch::new(&self.device.port.umem, 32);
        assert_eq!(send(&mut self.driver.port, &mut near, 5), 5);
        let mut got = 0;
        until("the bystander's packets", || {
            got += receive(&mut self.device.port, &mut far);
            got == 5
        });
    }
}

/// Whatever the driver writes into its rings while the device polls them: no panic, no frame lost to the pool.
#[test]
fn a_driver_that_scribbles_over_its_rings_harms_itself_alone() {
    let place = Place::new("scribbles");
    let mut device = device(&place);
    let mut batch = Batch::new(&device.port.umem, 32);
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        // Xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..60 {
        let mut front = FrontEnd::connect(&place.0);
        front.offer(16, 60);
        for _ in 0..200 {
            front.scribble(next(), next());
            if round % 2 == 0 {
                front.nudge(next());
            }
            receive(&mut device.port, &mut batch);
            send(&mut device.port, &mut batch, 3);
        }
        drop(front);
        until("its end", || !device.status.status().connected);
    }
    still_works(&place, &mut device);
    drop(batch);
    let umem = Arc::clone(&device.port.umem);
    drop(device);
    assert_eq!(umem.in_depot().0, 1024);
}
