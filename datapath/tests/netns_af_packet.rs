//! AF_PACKET on veth: copies of real frames, whole and as they were on the wire.

mod veth;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bifurcate_datapath::device::af_packet::{self, Config, Filter, Instruction};
use bifurcate_datapath::device::{Port, QueuePair, RxQueue, State};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig, Verdict, checksum};
use bifurcate_linux::bpf::{Program, ProgramSource, ProgramType};
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::packet::ReceiveRing;
use veth::{Lab, PATIENCE, PORT, payload, turn_around, until};

fn pool(jumbo_frames: u32) -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 1024,
        frame_size: 2048,
        jumbo_frames,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

/// `ip and udp dst port PORT`, without fragments or options, as classic BPF.
fn to_port() -> Vec<Instruction> {
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    vec![
        op(0x28, 0, 0, 12),              // ldh [12]
        op(0x15, 0, 5, 0x0800),          // jeq #0x800
        op(0x30, 0, 0, 23),              // ldb [23]
        op(0x15, 0, 3, 17),              // jeq #17
        op(0x28, 0, 0, 36),              // ldh [36]
        op(0x15, 0, 1, u32::from(PORT)), // jeq #PORT
        op(0x06, 0, 0, 0x4_0000),        // ret #262144
        op(0x06, 0, 0, 0),               // ret #0
    ]
}

fn open(lab: &Lab, umem: &Arc<Umem>, change: impl FnOnce(&mut Config<'_>)) -> Port {
    let program = to_port();
    let mut config = Config::new("card", Filter::Classic(&program));
    change(&mut config);
    lab.near.within(|| af_packet::open(&config, umem)).unwrap()
}

/// A lab, and a socket that takes the kernel's copies, so that it does not answer "port unreachable".
fn lab(test: &str) -> Option<(Lab, UdpSocket)> {
    let lab = Lab::new(test, 4)?;
    let sink = lab.server(PORT);
    Some((lab, sink))
}

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

#[test]
fn flows_spread_over_the_group_each_frame_once() {
    let Some((lab, _sink)) = lab("flows_spread_over_the_group_each_frame_once") else {
        return;
    };
    let umem = pool(0);
    let mut port = open(&lab, &umem, |config| config.queues = 4);
    let clients: Vec<_> = (0..64u8).map(|_| lab.client(PORT)).collect();
    for round in 0..10u8 {
        for (client, number) in clients.iter().zip(0u8..) {
            client.send(&[number, round]).unwrap();
        }
    }
    let mut batch = Batch::new(&umem, 32);
    let mut queue_of: BTreeMap<u8, usize> = BTreeMap::new();
    let mut seen: BTreeMap<[u8; 2], u32> = BTreeMap::new();
    until("all frames", || {
        for (at, pair) in port.queues.iter_mut().enumerate() {
            pair.rx.poll(&mut batch);
            for index in 0..batch.len() {
                let data = payload(batch.bytes(index));
                assert_eq!(
                    *queue_of.entry(data[0]).or_insert(at),
                    at,
                    "flow {} changed its queue",
                    data[0]
                );
                *seen.entry([data[0], data[1]]).or_default() += 1;
                assert!(batch.metadata(index).hash.is_some() && batch.metadata(index).timestamp.is_some());
            }
            batch.clear();
        }
        seen.len() == 640
    });
    assert!(seen.values().all(|&times| times == 1), "a frame came twice");
    let queues: std::collections::BTreeSet<_> = queue_of.values().collect();
    assert!(queues.len() > 1, "64 flows met one queue of four");
}

#[test]
fn reflected_frames_reach_the_sender() {
    let Some((lab, _sink)) = lab("reflected_frames_reach_the_sender") else {
        return;
    };
    let umem = pool(0);
    // A ring that is used many times over, and a filter and a way out on which our own answers would be seen.
    let everything = [Instruction {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0x4_0000,
    }];
    let mut config = Config::new("card", Filter::Classic(&everything));
    config.transmit.slots = 32;
    config.bypass_qdisc = false;
    let mut port = lab.near.within(|| af_packet::open(&config, &umem)).unwrap();
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut port.queues[0];
    for number in 0..300u32 {
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
    assert_eq!(
        rx.counters().totals().received,
        300,
        "our own answers are not received"
    );
    assert_eq!(tx.counters().totals().sent, 300);
    drop((port, batch));
    assert_eq!(umem.in_depot().0, 1024);
}

#[test]
fn nothing_that_the_filter_refuses_slips_in_while_opening() {
    let Some((lab, _sink)) = lab("nothing_that_the_filter_refuses_slips_in_while_opening") else {
        return;
    };
    let umem = pool(0);
    let stop = Arc::new(AtomicBool::new(false));
    let _other = lab.server(PORT + 1);
    let client = lab.client(PORT + 1);
    let flood = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = client.send(b"foreign");
            }
        })
    };
    let mut batch = Batch::new(&umem, 32);
    let wanted = lab.client(PORT);
    for _ in 0..20 {
        let mut port = open(&lab, &umem, |config| config.queues = 2);
        let mut got = 0;
        until("the wanted frame", || {
            // More than once: where the flood fills the kernel's backlog, the kernel drops it.
            wanted.send(b"wanted").unwrap();
            for pair in &mut port.queues {
                pair.rx.poll(&mut batch);
                for index in 0..batch.len() {
                    assert_eq!(payload(batch.bytes(index)), b"wanted");
                    got += 1;
                }
                batch.clear();
            }
            got > 0
        });
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

#[test]
fn a_stripped_vlan_tag_is_put_back() {
    let Some((lab, _sink)) = lab("a_stripped_vlan_tag_is_put_back") else {
        return;
    };
    let umem = pool(0);
    let mut port = open(&lab, &umem, |_| ());
    // The kernel takes the tag out of the bytes before it hands a frame to taps (skb_vlan_untag).
    let frame = veth::udp_frame(b"tagged", Some(3 << 13 | 5));
    std::io::Write::write_all(&mut lab.raw_sender(), &frame).unwrap();
    let mut batch = Batch::new(&umem, 32);
    until("the frame", || port.queues[0].rx.poll(&mut batch) > 0);
    let frame = batch.bytes(0);
    assert_eq!(frame[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    assert_eq!(
        frame[12..18],
        [0x81, 0, 0x60, 5, 0x08, 0],
        "tag protocol, priority 3 and VLAN 5, then IPv4"
    );
    assert_eq!(&frame[46..], b"tagged");
}

#[test]
fn a_checksum_left_to_the_card_is_completed() {
    let Some((lab, _sink)) = lab("a_checksum_left_to_the_card_is_completed") else {
        return;
    };
    let umem = pool(0);
    let mut port = open(&lab, &umem, |_| ());
    lab.far_run("ethtool -K wire tx on");
    lab.client(PORT).send(b"checksum").unwrap();
    let mut batch = Batch::new(&umem, 32);
    until("the frame", || port.queues[0].rx.poll(&mut batch) > 0);
    assert_eq!(payload(batch.bytes(0)), b"checksum");
    assert_eq!(checksum::verify(batch.bytes(0)), Some(true));
}

#[test]
fn a_frame_of_9000_bytes_arrives_and_leaves_whole() {
    let Some((lab, _sink)) = lab("a_frame_of_9000_bytes_arrives_and_leaves_whole") else {
        return;
    };
    lab.mtu(9000);
    let umem = pool(8);
    let mut port = open(&lab, &umem, |_| ());
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut port.queues[0];
    for round in 0..40u8 {
        let data: Vec<u8> = (0..8972usize)
            .map(|at| (at as u8).wrapping_mul(31) ^ round)
            .collect();
        client.send(&data).unwrap();
        until("the frame", || rx.poll(&mut batch) > 0);
        assert_eq!(payload(batch.bytes(0)), data);
        turn_around(batch.bytes_mut(0));
        batch.set(0, Verdict::Send);
        assert_eq!(tx.send(&mut batch), 1);
        batch.clear();
        let mut answer = vec![0u8; 16384];
        let got = client.recv(&mut answer).unwrap();
        assert!(answer[..got] == data, "the answer differs: {got} bytes");
    }
}

#[test]
fn frames_too_long_for_pool_or_device_are_counted() {
    let Some((lab, _sink)) = lab("frames_too_long_for_pool_or_device_are_counted") else {
        return;
    };
    lab.mtu(9000);
    let umem = pool(0);
    let mut port = open(&lab, &umem, |_| ());
    let client = lab.client(PORT);
    client.send(&[1; 5000]).unwrap();
    client.send(&[2; 20]).unwrap();
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut port.queues[0].rx;
    assert_eq!(receive(rx.as_mut(), &mut batch, 1), [[2; 20]]);
    until("the long one's count", || {
        rx.poll(&mut batch);
        rx.counters().totals().too_long > 0
    });
    assert_eq!((batch.len(), rx.counters().totals().too_long), (0, 1));
    // The longest frame of an MTU of 1,500 goes out, a longer one does not.
    lab.mtu(1500);
    let QueuePair { rx, tx, .. } = &mut port.queues[0];
    until("the sending half knows the new MTU", || {
        rx.poll(&mut batch);
        tx.mtu().unwrap().get() == 1500
    });
    for len in [1518usize, 1519, 13] {
        let frame = batch.cache_mut().copy_in(&vec![0u8; len]).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    assert_eq!(tx.send(&mut batch), 1);
    let totals = tx.counters().totals();
    assert_eq!((totals.too_long, totals.handler_invalid), (1, 1));
}

#[test]
fn a_stalled_consumer_loses_its_own_frames_counted() {
    let Some((lab, sink)) = lab("a_stalled_consumer_loses_its_own_frames_counted") else {
        return;
    };
    let umem = pool(0);
    let small = ReceiveRing {
        block_size: 4096,
        blocks: 4,
        retire_ms: 1,
        hash: false,
    };
    let mut port = open(&lab, &umem, |config| config.receive = small);
    let client = lab.client(PORT);
    let mut copy = [0u8; 8];
    for number in 0..1000u32 {
        client.send(&number.to_be_bytes()).unwrap();
        // The kernel's own copy, which it handles as ever.
        assert_eq!(sink.recv(&mut copy).unwrap(), 4);
        assert_eq!(copy[..4], number.to_be_bytes());
    }
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut port.queues[0].rx;
    until("every frame to be accounted for", || {
        rx.poll(&mut batch);
        batch.clear();
        let totals = rx.counters().totals();
        totals.received > 0 && totals.received + totals.ring_full == 1000
    });
    client.send(b"more").unwrap();
    assert_eq!(receive(rx.as_mut(), &mut batch, 1), [b"more"]);
}

#[test]
fn a_sleeper_is_woken_by_a_frame() {
    let Some((lab, _sink)) = lab("a_sleeper_is_woken_by_a_frame") else {
        return;
    };
    let umem = pool(0);
    let mut port = open(&lab, &umem, |_| ());
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let rx = &mut port.queues[0].rx;
    for _ in 0..3 {
        assert_eq!(rx.poll(&mut batch), 0);
        assert!(
            !wait_one(
                rx.ready_fd().unwrap(),
                Interest::Read,
                Some(Duration::from_millis(20))
            )
            .unwrap()
            .any()
        );
        client.send(b"wake").unwrap();
        assert!(
            wait_one(rx.ready_fd().unwrap(), Interest::Read, Some(PATIENCE))
                .unwrap()
                .read
        );
        assert_eq!(rx.poll(&mut batch), 1);
        batch.clear();
    }
}

#[test]
fn a_device_that_goes_down_comes_back_and_a_deleted_one_is_gone() {
    let Some((lab, _sink)) = lab("a_device_that_goes_down_comes_back_and_a_deleted_one_is_gone") else {
        return;
    };
    let umem = pool(0);
    let mut port = open(&lab, &umem, |_| ());
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { rx, tx, .. } = &mut port.queues[0];
    let mut becomes = |command: &str, expected: State| {
        lab.near_run(command);
        until("the state", || {
            rx.poll(&mut batch);
            rx.state() == expected
        });
        // Whatever happened is told once: nothing keeps a sleeper awake.
        let ready = wait_one(
            rx.ready_fd().unwrap(),
            Interest::Read,
            Some(Duration::from_millis(5)),
        )
        .unwrap();
        assert!(!ready.any(), "{expected:?}: {ready:?}");
    };
    becomes("ip link set card down", State::Down);
    becomes("ip link set card up", State::Up);
    lab.carries();
    lab.client(PORT).send(b"again").unwrap();
    assert_eq!(receive(rx.as_mut(), &mut batch, 1), [b"again"]);
    let mut becomes = |command: &str, expected: State| {
        lab.near_run(command);
        until("the state", || {
            rx.poll(&mut batch);
            rx.state() == expected
        });
    };
    becomes("ip link del card", State::Gone);
    let frame = batch.cache_mut().copy_in(&[0u8; 60]).unwrap();
    batch.push_send(frame, 0).unwrap();
    tx.send(&mut batch);
    assert!(
        !wait_one(
            rx.ready_fd().unwrap(),
            Interest::Read,
            Some(Duration::from_millis(5))
        )
        .unwrap()
        .any()
    );
}

#[test]
fn an_ebpf_filter_takes_the_place_of_the_classic_one() {
    let Some((lab, _sink)) = lab("an_ebpf_filter_takes_the_place_of_the_classic_one") else {
        return;
    };
    let umem = pool(0);
    // return skb->len > 100 ? 0 : 0x40000
    let code: Vec<u8> = [
        [0x61, 0x12, 0, 0, 0, 0, 0, 0],   // r2 = skb->len
        [0xb7, 0x00, 0, 0, 0, 0, 0, 0],   // r0 = 0
        [0x25, 0x02, 1, 0, 100, 0, 0, 0], // if r2 > 100 goto +1
        [0xb7, 0x00, 0, 0, 0, 0, 4, 0],   // r0 = 0x40000
        [0x95, 0x00, 0, 0, 0, 0, 0, 0],   // exit
    ]
    .concat();
    let program = Program::load(&ProgramSource {
        kind: ProgramType::SocketFilter,
        name: "bf_test",
        instructions: &code,
        maps: &[],
        fragments: false,
    })
    .unwrap();
    let config = Config::new("card", Filter::Program(program.as_fd()));
    let mut port = lab.near.within(|| af_packet::open(&config, &umem)).unwrap();
    let client = lab.client(PORT);
    client.send(&[1; 90]).unwrap();
    client.send(&[2; 20]).unwrap();
    let mut batch = Batch::new(&umem, 32);
    assert_eq!(receive(port.queues[0].rx.as_mut(), &mut batch, 1), [[2; 20]]);
}

#[test]
fn what_cannot_be_is_an_error_that_names_the_device() {
    let Some((lab, _sink)) = lab("what_cannot_be_is_an_error_that_names_the_device") else {
        return;
    };
    let umem = pool(0);
    let program = to_port();
    let missing = Config::new("nowhere", Filter::Classic(&program));
    let error = lab
        .near
        .within(|| af_packet::open(&missing, &umem))
        .err()
        .unwrap();
    assert_eq!(error.code(), "ENODEV");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let endless = [Instruction {
        code: 0x05,
        jt: 0,
        jf: 0,
        k: 7,
    }];
    let refused = Config::new("card", Filter::Classic(&endless));
    let error = lab
        .near
        .within(|| af_packet::open(&refused, &umem))
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("setsockopt(SO_ATTACH_FILTER) dev=card"),
        "{error}"
    );
    let none = Config {
        queues: 0,
        ..Config::new("card", Filter::Classic(&program))
    };
    assert_eq!(
        lab.near
            .within(|| af_packet::open(&none, &umem))
            .err()
            .unwrap()
            .code(),
        "EINVAL"
    );
}

#[test]
fn the_bytes_of_a_filter_become_its_instructions() {
    let program = [Instruction {
        code: 0x28,
        jt: 1,
        jf: 2,
        k: 0x0102_0304,
    }];
    let mut bytes = 0x28u16.to_ne_bytes().to_vec();
    bytes.extend([1, 2]);
    bytes.extend(0x0102_0304u32.to_ne_bytes());
    assert_eq!(af_packet::instructions(&bytes).unwrap(), program);
    assert_eq!(af_packet::instructions(&bytes[..7]), None);
}
