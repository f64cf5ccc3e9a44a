//! AF_XDP on veth: real frames from a real peer, through real sockets.

mod veth;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use bifurcate_datapath::device::af_xdp::{self, BusyPoll, Config, Mode, Opened, QueueSocket, ZeroCopy};
use bifurcate_datapath::device::{QueuePair, RxQueue, State};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig, Verdict};
use bifurcate_linux::bpf::XdpMode;
use bifurcate_linux::event::{Interest, wait_one};
use veth::{Lab, PATIENCE, PORT, Steering, payload, turn_around, until};

fn pool(frames: u32, jumbo_frames: u32) -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames,
        frame_size: 2048,
        jumbo_frames,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

fn config(queues: u32) -> Config {
    Config {
        queues: (0..queues).collect(),
        ring_size: 256,
        zero_copy: ZeroCopy::Off,
        ..Config::new("card")
    }
}

fn open(lab: &Lab, config: &Config, umem: &Arc<Umem>, share: Option<&QueueSocket>) -> Opened {
    lab.near.within(|| af_xdp::open(config, umem, share)).unwrap()
}

fn steer(lab: &Lab, opened: &Opened, device: &str, mode: XdpMode) -> Steering {
    let steering = Steering::new(lab, device, mode);
    for socket in &opened.sockets {
        steering.insert(socket.queue(), socket.as_fd());
    }
    steering
}

/// Polls until `count` frames came; gives their payloads and drops the frames.
fn receive(rx: &mut dyn RxQueue, batch: &mut Batch, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    until("frames", || {
        rx.poll(batch);
        got.extend((0..batch.len()).map(|at| payload(batch.bytes(at)).to_vec()));
        batch.clear();
        got.len() >= count
    });
    got
}

fn totals(opened: &Opened) -> (u64, u64) {
    opened
        .port
        .counters()
        .iter()
        .fold((0, 0), |(received, lost), queue| {
            let rx = queue.rx.totals();
            (received + rx.received, lost + rx.ring_full + rx.no_frames)
        })
}

#[test]
fn flows_arrive_on_their_queues_and_nothing_is_lost() {
    let Some(lab) = Lab::new("flows_arrive_on_their_queues_and_nothing_is_lost", 4) else {
        return;
    };
    let umem = pool(4096, 0);
    let mut opened = open(&lab, &config(4), &umem, None);
    assert!(!opened.obtained.zero_copy);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let clients: Vec<_> = (0..64u8).map(|_| lab.client(PORT)).collect();
    let mut batch = Batch::new(&umem, 32);
    let mut queue_of: BTreeMap<u8, usize> = BTreeMap::new();
    let mut received = 0;
    for round in 0..10u8 {
        for (client, number) in clients.iter().zip(0u8..) {
            client.send(&[number, round]).unwrap();
        }
        until("a round", || {
            for (at, pair) in opened.port.queues.iter_mut().enumerate() {
                pair.rx.poll(&mut batch);
                for index in 0..batch.len() {
                    let flow = payload(batch.bytes(index))[0];
                    assert_eq!(
                        *queue_of.entry(flow).or_insert(at),
                        at,
                        "flow {flow} changed its queue"
                    );
                    received += 1;
                }
                batch.clear();
            }
            received == 64 * (usize::from(round) + 1)
        });
    }
    let queues: std::collections::BTreeSet<_> = queue_of.values().collect();
    assert!(queues.len() > 1, "64 flows met one queue of four");
    assert_eq!(totals(&opened), (640, 0));
}

#[test]
fn reflected_frames_reach_the_sender() {
    let Some(lab) = Lab::new("reflected_frames_reach_the_sender", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let mut opened = open(&lab, &config(1), &umem, None);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut opened.port.queues[0];
    // More than the rings have entries, so that every frame and slot is used again.
    for number in 0..1000u32 {
        client.send(&number.to_be_bytes()).unwrap();
        until("the frame", || rx.poll(&mut batch) > 0);
        turn_around(batch.bytes_mut(0));
        batch.set(0, Verdict::Send);
        assert_eq!(tx.send(&mut batch), 1);
        batch.clear();
        let mut answer = [0u8; 16];
        assert_eq!(client.recv(&mut answer).unwrap(), 4);
        assert_eq!(answer[..4], number.to_be_bytes());
    }
    let sent = tx.counters().totals();
    assert_eq!(
        (
            sent.sent,
            sent.sent_bytes,
            sent.ring_full,
            sent.invalid_descriptor
        ),
        (1000, 46_000, 0, 0)
    );
}

#[test]
fn one_pool_serves_two_devices_and_frames_cross_without_a_copy() {
    let Some(lab) = Lab::new("one_pool_serves_two_devices_and_frames_cross_without_a_copy", 2) else {
        return;
    };
    lab.second_pair(1);
    let umem = pool(2048, 0);
    let mut first = open(&lab, &config(2), &umem, None);
    let second = Config {
        ifname: "card2".into(),
        ..config(1)
    };
    let mut second = open(&lab, &second, &umem, Some(&first.sockets[0]));
    let _steering = steer(&lab, &first, "card", XdpMode::Driver);
    // What leaves card2 arrives on wire2, where nobody looks at addresses.
    let tap = lab.far.within(|| Ok(raw_listener("wire2"))).unwrap();
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    for number in 0..100u8 {
        client.send(&[number; 60]).unwrap();
        let mut offset = 0;
        until("the frame", || {
            first.port.queues.iter_mut().any(|pair| {
                let got = pair.rx.poll(&mut batch) > 0;
                offset = batch.offset(0);
                got
            })
        });
        assert_eq!(payload(batch.bytes(0)), [number; 60]);
        batch.send_all(0);
        assert_eq!(second.port.queues[0].tx.send(&mut batch), 1);
        batch.clear();
        let mut got = [0u8; 256];
        let len = std::io::Read::read(&mut &tap, &mut got).unwrap();
        assert_eq!(payload(&got[..len]), [number; 60]);
    }
    drop((first, second, batch));
    until("every frame is back in the pool", || umem.in_depot().0 == 2048);
}

/// A raw socket that gets everything that arrives on a device, as a file to read.
fn raw_listener(device: &str) -> std::fs::File {
    let index = bifurcate_linux::interface::index(device).unwrap();
    let socket = bifurcate_linux::packet::PacketSocket::open().unwrap();
    socket.ignore_outgoing().unwrap();
    socket.bind(index, true).unwrap();
    std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap())
}

#[test]
fn a_frame_of_9000_bytes_arrives_and_leaves_whole() {
    let Some(lab) = Lab::new("a_frame_of_9000_bytes_arrives_and_leaves_whole", 1) else {
        return;
    };
    let umem = pool(1024, 16);
    // The MTU changes while the queue is open.
    let config = Config {
        multi_buffer: true,
        ..config(1)
    };
    let mut opened = open(&lab, &config, &umem, None);
    assert!(opened.obtained.multi_buffer);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    lab.mtu(9000);
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut opened.port.queues[0];
    until("the sending half knows the new MTU", || {
        rx.poll(&mut batch);
        tx.mtu().unwrap().get() == 9000
    });
    for round in 0..50u8 {
        // Short, just over one frame, and the longest.
        for len in [20usize, 2000, 8972] {
            let data: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ round).collect();
            client.send(&data).unwrap();
            until("the frame", || rx.poll(&mut batch) > 0);
            assert_eq!(batch.len(), 1);
            assert_eq!(payload(batch.bytes(0)), data);
            turn_around(batch.bytes_mut(0));
            batch.set(0, Verdict::Send);
            assert_eq!(tx.send(&mut batch), 1);
            batch.clear();
            let mut answer = vec![0u8; 16384];
            let got = client.recv(&mut answer).unwrap();
            assert!(answer[..got] == data, "the answer differs: {got} of {len} bytes");
        }
    }
    drop((opened, batch));
    until("every frame is back in the pool", || {
        umem.in_depot() == (1024, 16)
    });
}

#[test]
fn without_multi_buffer_a_long_frame_is_counted_as_too_long() {
    let Some(lab) = Lab::new("without_multi_buffer_a_long_frame_is_counted_as_too_long", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let mut opened = open(&lab, &config(1), &umem, None);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    lab.mtu(3000);
    let client = lab.client(PORT);
    client.send(&[1; 2500]).unwrap();
    client.send(&[2; 20]).unwrap();
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut opened.port.queues[0].rx;
    assert_eq!(receive(rx.as_mut(), &mut batch, 1), [[2; 20]]);
    until("the kernel's count", || {
        rx.poll(&mut batch);
        rx.counters().totals().too_long == 1
    });
    assert_eq!(rx.counters().totals().no_frames, 0);
}

#[test]
fn generic_mode_receives_and_sends() {
    let Some(lab) = Lab::new("generic_mode_receives_and_sends", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let config = Config {
        mode: Mode::Generic,
        zero_copy: ZeroCopy::Prefer,
        ..config(1)
    };
    let mut opened = open(&lab, &config, &umem, None);
    assert!(!opened.obtained.zero_copy);
    let _steering = steer(&lab, &opened, "card", XdpMode::Generic);
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut opened.port.queues[0];
    client.send(b"generic").unwrap();
    until("the frame", || rx.poll(&mut batch) > 0);
    turn_around(batch.bytes_mut(0));
    batch.set(0, Verdict::Send);
    assert_eq!(tx.send(&mut batch), 1);
    let mut answer = [0u8; 16];
    assert_eq!(client.recv(&mut answer).unwrap(), 7);
}

#[test]
fn a_sleeper_is_woken_by_a_frame() {
    let Some(lab) = Lab::new("a_sleeper_is_woken_by_a_frame", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let mut opened = open(&lab, &config(1), &umem, None);
    assert!(opened.obtained.need_wakeup);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut opened.port.queues[0].rx;
    for _ in 0..3 {
        assert_eq!(rx.poll(&mut batch), 0);
        let quiet = wait_one(
            rx.ready_fd().unwrap(),
            Interest::Read,
            Some(std::time::Duration::from_millis(20)),
        );
        assert!(!quiet.unwrap().read);
        let sender = client.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            sender.send(b"wake").unwrap();
        });
        let woken = wait_one(rx.ready_fd().unwrap(), Interest::Read, Some(PATIENCE)).unwrap();
        assert!(woken.read);
        assert_eq!(rx.poll(&mut batch), 1);
        batch.clear();
        thread.join().unwrap();
    }
}

#[test]
fn a_deleted_device_is_told_as_gone() {
    let Some(lab) = Lab::new("a_deleted_device_is_told_as_gone", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let mut opened = open(&lab, &config(1), &umem, None);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let client = lab.client(PORT);
    client.send(b"before").unwrap();
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut opened.port.queues[0];
    until("the frame", || rx.poll(&mut batch) > 0);
    assert_eq!(rx.state(), State::Up);
    lab.near_run("ip link del card");
    // A frame on its way meets the missing device first: no panic, no endless loop.
    batch.send_all(0);
    tx.send(&mut batch);
    batch.clear();
    until("the state", || {
        rx.poll(&mut batch);
        rx.state() == State::Gone
    });
    assert_eq!(opened.sockets[0].state(), State::Gone);
    drop((opened, batch));
    assert_eq!(umem.in_depot().0, 1024);
}

#[test]
fn a_device_that_went_down_comes_back() {
    let Some(lab) = Lab::new("a_device_that_went_down_comes_back", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let mut opened = open(&lab, &config(1), &umem, None);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut opened.port.queues[0].rx;
    for state in ["down", "up"] {
        lab.near_run(&format!("ip link set card {state}"));
        let expected = if state == "up" { State::Up } else { State::Down };
        until("the state", || {
            rx.poll(&mut batch);
            rx.state() == expected
        });
    }
    lab.near_run("ip neigh replace 10.99.0.2 lladdr 02:00:00:00:00:02 dev card nud permanent");
    lab.carries();
    lab.client(PORT).send(b"again").unwrap();
    assert_eq!(receive(rx.as_mut(), &mut batch, 1), [b"again"]);
}

#[test]
fn a_stalled_consumer_loses_its_own_frames_and_nobody_elses() {
    let Some(lab) = Lab::new("a_stalled_consumer_loses_its_own_frames_and_nobody_elses", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let config = Config {
        ring_size: 64,
        ..config(1)
    };
    let mut opened = open(&lab, &config, &umem, None);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let (ours, server) = (lab.client(PORT), lab.server(PORT + 1));
    let others = lab.client(PORT + 1);
    let mut answer = [0u8; 8];
    for number in 0..500u32 {
        ours.send(&number.to_be_bytes()).unwrap();
        // The kernel's flow, over the same queue of the same card.
        others.send(&number.to_be_bytes()).unwrap();
        assert_eq!(server.recv(&mut answer).unwrap(), 4);
        assert_eq!(answer[..4], number.to_be_bytes());
    }
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut opened.port.queues[0].rx;
    let got = receive(rx.as_mut(), &mut batch, 64);
    assert_eq!(got.len(), 64, "what the rings held");
    until("the kernel's count", || {
        rx.poll(&mut batch);
        let totals = rx.counters().totals();
        totals.received + totals.no_frames + totals.ring_full == 500
    });
    // And it goes on as if nothing had been.
    ours.send(b"more").unwrap();
    assert_eq!(receive(rx.as_mut(), &mut batch, 1), [b"more"]);
}

#[test]
fn required_zero_copy_on_veth_is_an_error_and_preferred_zero_copy_is_told() {
    let Some(lab) = Lab::new(
        "required_zero_copy_on_veth_is_an_error_and_preferred_zero_copy_is_told",
        1,
    ) else {
        return;
    };
    let umem = pool(1024, 0);
    let require = Config {
        zero_copy: ZeroCopy::Require,
        ..config(1)
    };
    let error = lab
        .near
        .within(|| af_xdp::open(&require, &umem, None))
        .err()
        .unwrap();
    assert_eq!(error.code(), "EOPNOTSUPP", "{error}");
    assert!(
        error.to_string().starts_with("bind(AF_XDP) dev=card ifindex="),
        "{error}"
    );
    assert_eq!(umem.in_depot().0, 1024);
    let prefer = Config {
        zero_copy: ZeroCopy::Prefer,
        ..config(1)
    };
    let opened = open(&lab, &prefer, &umem, None);
    assert!(!opened.obtained.zero_copy);
    assert_eq!(opened.obtained.refused.len(), 1);
    assert_eq!(opened.obtained.refused[0].code(), "EOPNOTSUPP");
    let generic = Config {
        mode: Mode::Generic,
        ..require
    };
    let error = lab
        .near
        .within(|| af_xdp::open(&generic, &umem, None))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("generic mode always copies"),
        "{error}"
    );
}

#[test]
fn a_taken_queue_is_busy_and_a_released_one_can_be_had_at_once() {
    let Some(lab) = Lab::new("a_taken_queue_is_busy_and_a_released_one_can_be_had_at_once", 1) else {
        return;
    };
    let (umem, other) = (pool(1024, 0), pool(1024, 0));
    let opened = open(&lab, &config(1), &umem, None);
    let error = lab
        .near
        .within(|| af_xdp::open(&config(1), &other, None))
        .err()
        .unwrap();
    assert_eq!(error.code(), "EBUSY", "{error}");
    drop(opened);
    for _ in 0..5 {
        drop(open(&lab, &config(1), &other, None));
    }
    assert_eq!((umem.in_depot().0, other.in_depot().0), (1024, 1024));
}

#[test]
fn what_does_not_exist_is_named() {
    let Some(lab) = Lab::new("what_does_not_exist_is_named", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let missing = Config {
        ifname: "nowhere".into(),
        ..config(1)
    };
    let error = lab
        .near
        .within(|| af_xdp::open(&missing, &umem, None))
        .err()
        .unwrap();
    assert_eq!(error.code(), "ENODEV");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let queue = Config {
        queues: vec![7],
        ..config(1)
    };
    let error = lab
        .near
        .within(|| af_xdp::open(&queue, &umem, None))
        .err()
        .unwrap();
    assert_eq!(error.code(), "EINVAL");
    assert!(
        error.to_string().contains("dev=card") && error.to_string().contains("queue=7"),
        "{error}"
    );
}

#[test]
fn busy_polling_receives_without_interrupts() {
    let Some(lab) = Lab::new("busy_polling_receives_without_interrupts", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let config = Config {
        busy_poll: Some(BusyPoll::default()),
        ..config(1)
    };
    let mut opened = open(&lab, &config, &umem, None);
    assert!(opened.obtained.busy_poll);
    let _steering = steer(&lab, &opened, "card", XdpMode::Driver);
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut opened.port.queues[0].rx;
    for number in 0..200u8 {
        client.send(&[number]).unwrap();
        assert_eq!(receive(rx.as_mut(), &mut batch, 1), [[number]]);
    }
}

#[test]
fn a_full_transmit_ring_is_counted_and_its_frames_come_back() {
    let Some(lab) = Lab::new("a_full_transmit_ring_is_counted_and_its_frames_come_back", 1) else {
        return;
    };
    let umem = pool(1024, 0);
    let config = Config {
        ring_size: 32,
        ..config(1)
    };
    let mut opened = open(&lab, &config, &umem, None);
    // Nothing can leave a device that is down.
    lab.near_run("ip link set card down");
    let mut batch = Batch::new(&umem, 256);
    for _ in 0..100 {
        let frame = batch.cache_mut().copy_in(&[0u8; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    let tx = &mut opened.port.queues[0].tx;
    assert_eq!(tx.send(&mut batch), 32);
    assert_eq!(tx.counters().totals().ring_full, 68);
    assert_eq!(batch.clear(), 0);
    drop((opened, batch));
    assert_eq!(umem.in_depot().0, 1024);
}
