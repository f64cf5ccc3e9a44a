//! An end that goes and comes again: what waited is sent to the next one, in order, whatever the rings are.

mod ends;
mod place;

use bifurcate_datapath::device::{QueuePair, State, vhost, virtio};
use bifurcate_datapath::frame::Batch;
use bifurcate_datapath::ring::virtio::feature;
use ends::{pool, receive, send};
use place::{Place, until};

/// How the two ends meet.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    packed: bool,
    queues: u32,
    /// The driver listens and its device connects.
    driver_listens: bool,
    in_order: bool,
}

impl Meeting {
    fn all() -> impl Iterator<Item = Meeting> {
        (0..16).map(|choice| Meeting {
            packed: choice & 1 != 0,
            queues: 1 + (choice >> 1 & 1),
            driver_listens: choice & 4 != 0,
            in_order: choice & 8 != 0,
        })
    }

    fn driver(self, place: &Place) -> virtio::Opened {
        let layout = if self.packed { 0 } else { feature::RING_PACKED };
        let order = if self.in_order { 0 } else { feature::IN_ORDER };
        let config = virtio::Config {
            server: self.driver_listens,
            queues: self.queues,
            without: layout | order,
            ..virtio::Config::new(&place.0)
        };
        virtio::open(&config, &pool()).unwrap()
    }

    fn device(self, place: &Place) -> vhost::Opened {
        let config = vhost::Config {
            server: !self.driver_listens,
            queues: self.queues,
            ..vhost::Config::new(&place.0)
        };
        vhost::open(&config, &pool()).unwrap()
    }

    /// Both, whoever has to be there first.
    fn both(self, place: &Place) -> (virtio::Opened, vhost::Opened) {
        if self.driver_listens {
            let driver = self.driver(place);
            (driver, self.device(place))
        } else {
            let device = self.device(place);
            (self.driver(place), device)
        }
    }
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

fn send_numbered(pair: &mut QueuePair, batch: &mut Batch, numbers: std::ops::Range<u8>) {
    for number in numbers.clone() {
        let frame = batch.cache_mut().copy_in(&packet(number)).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    let sent = pair.tx.send(batch);
    assert_eq!(sent, numbers.len(), "{:?}", pair.tx.counters().totals());
    batch.clear();
}

fn take(pair: &mut QueuePair, batch: &mut Batch) -> Vec<Vec<u8>> {
    pair.rx.poll(batch);
    let got = (0..batch.len()).map(|at| batch.bytes(at).to_vec()).collect();
    batch.clear();
    got
}

/// Sends some from one to the other, where they arrive as they were. A driver's half that learns later than the other
/// that its device is there keeps them until it is next sent by.
fn carry(from: (&mut QueuePair, &mut Batch), to: (&mut QueuePair, &mut Batch), numbers: std::ops::Range<u8>) {
    send_numbered(from.0, from.1, numbers.clone());
    let mut got = Vec::new();
    until("what was sent", || {
        got.extend(take(to.0, to.1));
        send_numbered(from.0, from.1, 0..0);
        got.len() >= numbers.len()
    });
    assert_eq!(got, numbers.map(packet).collect::<Vec<_>>());
}

/// Waits until a queue's rings are up at both ends.
fn both_up(ours: (&mut QueuePair, &mut Batch), theirs: (&mut QueuePair, &mut Batch)) {
    until("the rings", || {
        take(ours.0, ours.1);
        take(theirs.0, theirs.1);
        [ours.0.rx.state(), theirs.0.rx.state()] == [State::Up; 2]
    });
}

#[test]
fn frames_that_wait_for_the_next_device_follow_those_that_the_last_one_left() {
    for meeting in Meeting::all() {
        let place = Place::new("order");
        let (mut driver, mut first) = meeting.both(&place);
        let mut near = Batch::new(&driver.port.umem, 32);
        let mut far = Batch::new(&first.port.umem, 32);
        let pairs = 0..meeting.queues as usize;
        for index in pairs.clone() {
            let (ours, theirs) = (&mut driver.port.queues[index], &mut first.port.queues[index]);
            both_up((&mut *ours, &mut near), (&mut *theirs, &mut far));
            // Round the ring but for a little: what is left in it lies across its end.
            for _ in 0..252 {
                carry((&mut *ours, &mut near), (&mut *theirs, &mut far), 0..1);
            }
            carry((&mut *ours, &mut near), (&mut *theirs, &mut far), 0..2);
            send_numbered(ours, &mut near, 2..6);
            // Nor is what the first one had sent lost, which the driver has not looked at yet.
            send_numbered(theirs, &mut far, 20..21);
        }
        drop((far, first));
        until("the end", || !driver.status.status().connected);
        for index in pairs.clone() {
            send_numbered(&mut driver.port.queues[index], &mut near, 6..10);
        }
        let mut second = meeting.device(&place);
        let mut far = Batch::new(&second.port.umem, 32);
        for index in pairs {
            let (ours, theirs) = (&mut driver.port.queues[index], &mut second.port.queues[index]);
            let mut got = Vec::new();
            until("all of them", || {
                send_numbered(ours, &mut near, 0..0);
                got.extend(take(theirs, &mut far));
                got.len() >= 8
            });
            let expected: Vec<_> = (2..10).map(packet).collect();
            assert!(got == expected, "pair {index} of {meeting:?}");
            assert_eq!(take(ours, &mut near), [packet(20)], "pair {index} of {meeting:?}");
            // And the rings are as good as new ones.
            for _ in 0..300 {
                carry((&mut *ours, &mut near), (&mut *theirs, &mut far), 7..8);
                carry((&mut *theirs, &mut far), (&mut *ours, &mut near), 8..9);
            }
        }
        let layout = if meeting.packed { "packed" } else { "split " };
        let listens = if meeting.driver_listens {
            "driver"
        } else {
            "device"
        };
        if meeting.in_order {
            println!(
                "INTEROP | driver | our device, gone and back; the {listens} listens | {layout} | single buffers | {} queue(s) | ok |",
                meeting.queues
            );
        }
    }
}

#[test]
fn a_device_serves_the_driver_that_comes_after_the_one_that_went() {
    for meeting in Meeting::all() {
        let place = Place::new("next-driver");
        let (mut driver, mut device) = meeting.both(&place);
        let mut far = Batch::new(&device.port.umem, 32);
        for connections in 1..4 {
            let mut near = Batch::new(&driver.port.umem, 32);
            for index in 0..meeting.queues as usize {
                let (ours, theirs) = (&mut driver.port.queues[index], &mut device.port.queues[index]);
                both_up((&mut *ours, &mut near), (&mut *theirs, &mut far));
                for _ in 0..300 {
                    carry((&mut *ours, &mut near), (&mut *theirs, &mut far), 2..4);
                    carry((&mut *theirs, &mut far), (&mut *ours, &mut near), 6..8);
                }
            }
            // One that connects may knock once more at the door of a driver that is going.
            assert!(device.status.status().connections >= connections);
            drop((near, driver));
            until("the end", || !device.status.status().connected);
            assert_eq!(receive(&mut device.port, &mut far), 0);
            let full = |device: &vhost::Opened| device.port.queues[0].tx.counters().totals().ring_full;
            let before = full(&device);
            assert_eq!(send(&mut device.port, &mut far, 1), 0, "nobody is there");
            assert_eq!(full(&device), before + 1);
            driver = meeting.driver(&place);
        }
    }
}
