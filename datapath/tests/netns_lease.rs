//! A lease's sockets: handed over and used, and what whoever got them cannot do with them.

mod veth;

use std::os::fd::{AsFd, OwnedFd};

use bifurcate_datapath::device::af_xdp::{self, Config, Granted, Received, ZeroCopy};
use bifurcate_datapath::device::{LeftToCard, State};
use bifurcate_datapath::frame::{Batch, Pages, UmemConfig};
use bifurcate_linux::bpf::XdpMode;
use bifurcate_linux::memory::{Mapping, MemoryFile, PageKind};
use bifurcate_linux::xsk::{Bind, CopyMode, RingKind, XskSocket};
use veth::{Lab, PORT, Steering, payload, turn_around, until};

const RING: u32 = 64;
const POOL: UmemConfig = UmemConfig {
    frames: 256,
    frame_size: 2048,
    jumbo_frames: 0,
    pages: Pages::Ordinary,
};

fn grant(lab: &Lab, queues: &[u32], transmit: bool) -> Granted {
    let config = Config {
        queues: queues.to_vec(),
        ring_size: RING,
        zero_copy: ZeroCopy::Off,
        ..Config::new("card")
    };
    lab.near
        .within(|| af_xdp::grant(&config, &POOL, transmit))
        .unwrap()
}

fn received(granted: Granted, transmit: bool) -> Received {
    Received {
        name: "card".to_owned(),
        sockets: granted.sockets,
        memory: granted.memory,
        pool: POOL,
        ring_size: RING,
        filled: granted.filled,
        transmit,
        obtained: granted.obtained,
        left: LeftToCard::NOTHING,
        mtu: 1500,
    }
}

fn copy(fd: &OwnedFd) -> OwnedFd {
    fd.try_clone().unwrap()
}

#[test]
fn what_was_handed_over_receives_and_sends() {
    let Some(lab) = Lab::new("what_was_handed_over_receives_and_sends", 2) else {
        return;
    };
    let granted = grant(&lab, &[0, 1], true);
    assert_eq!((granted.sockets.len(), granted.filled), (2, 64));
    let steering = Steering::new(&lab, "card", XdpMode::Driver);
    for (queue, socket) in (0u32..).zip(&granted.sockets) {
        steering.insert(queue, socket.as_fd());
    }
    let mut opened = af_xdp::receive(received(granted, true)).unwrap();
    let client = lab.client(PORT);
    let mut batch = Batch::new(&opened.port.umem, 32);
    // More than the rings hold, so that every frame is used again.
    for number in 0..300u32 {
        client.send(&number.to_ne_bytes()).unwrap();
        let mut answered = false;
        until("the datagram", || {
            for pair in &mut opened.port.queues {
                if pair.rx.poll(&mut batch) == 0 {
                    continue;
                }
                for at in 0..batch.len() {
                    let frame = batch.take(at).unwrap();
                    let mut bytes = batch.cache().bytes(&frame).to_vec();
                    batch.cache_mut().give(frame);
                    assert_eq!(payload(&bytes), number.to_ne_bytes());
                    turn_around(&mut bytes);
                    let answer = batch.cache_mut().copy_in(&bytes).unwrap();
                    batch.push_send(answer, 0).unwrap();
                }
                batch.sending_to(0);
                assert_eq!(pair.tx.send(&mut batch), 1);
                batch.clear();
                answered = true;
            }
            answered
        });
        let mut answer = [0; 16];
        assert_eq!(client.recv(&mut answer).unwrap(), 4);
        assert_eq!(answer[..4], number.to_ne_bytes());
    }
}

#[test]
fn a_receive_only_socket_grows_no_tx_ring() {
    let Some(lab) = Lab::new("a_receive_only_socket_grows_no_tx_ring", 1) else {
        return;
    };
    let granted = grant(&lab, &[0], false);
    let socket = XskSocket::received(copy(&granted.sockets[0])).unwrap();
    assert_eq!(socket.size_ring(RingKind::Tx, RING).unwrap_err().code(), "EBUSY");
    assert!(socket.map_ring(RingKind::Tx, RING).is_err());
    assert!(af_xdp::receive(received(granted, true)).is_err());
}

#[test]
fn a_client_can_do_nothing_to_its_socket_but_poll_it() {
    let Some(lab) = Lab::new("a_client_can_do_nothing_to_its_socket_but_poll_it", 2) else {
        return;
    };
    let granted = grant(&lab, &[0], true);
    let socket = XskSocket::received(copy(&granted.sockets[0])).unwrap();
    let own = MemoryFile::create("bf-hostile", 1 << 20, PageKind::Ordinary).unwrap();
    let own = Mapping::shared(&own).unwrap();
    assert_eq!(
        socket.register(&own, 1 << 20, 2048, 0).unwrap_err().code(),
        "EBUSY"
    );
    for kind in [RingKind::Rx, RingKind::Fill, RingKind::Completion] {
        assert_eq!(
            socket.size_ring(kind, 128).unwrap_err().code(),
            "EBUSY",
            "{kind:?}"
        );
    }
    let elsewhere = Bind {
        ifindex: lab
            .near
            .within(|| bifurcate_linux::interface::index("card"))
            .unwrap(),
        queue: 1,
        copy: CopyMode::Copy,
        need_wakeup: true,
        multi_buffer: false,
        shared: None,
    };
    assert!(lab.near.within(|| socket.bind(&elsewhere)).is_err());
}

#[test]
fn the_memory_cannot_be_resized() {
    let Some(lab) = Lab::new("the_memory_cannot_be_resized", 1) else {
        return;
    };
    let granted = grant(&lab, &[0], false);
    let file = std::fs::File::from(copy(&granted.memory));
    let len = file.metadata().unwrap().len();
    assert_eq!(len, 256 * 2048);
    for other in [0, len / 2, len * 2] {
        assert!(file.set_len(other).is_err(), "{other}");
    }
}

#[test]
fn a_lease_whose_numbers_do_not_fit_is_refused() {
    let Some(lab) = Lab::new("a_lease_whose_numbers_do_not_fit_is_refused", 1) else {
        return;
    };
    let granted = grant(&lab, &[0], true);
    let again = || {
        received(
            Granted {
                sockets: granted.sockets.iter().map(copy).collect(),
                memory: copy(&granted.memory),
                filled: granted.filled,
                obtained: granted.obtained.clone(),
            },
            true,
        )
    };
    type Change = fn(&mut Received);
    let wrong: [(&str, Change); 7] = [
        ("no socket", |lease| lease.sockets.clear()),
        ("a ring that is no power of two", |lease| lease.ring_size = 100),
        ("a ring of gigabytes", |lease| lease.ring_size = 1 << 31),
        ("more chunks than the ring", |lease| lease.filled = RING + 1),
        ("a pool longer than its file", |lease| lease.pool.frames = 4096),
        ("a pool of another frame size", |lease| {
            lease.pool.frame_size = 1000
        }),
        ("a file that is no memory", |lease| {
            lease.memory = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        }),
    ];
    for (what, change) in wrong {
        let mut lease = again();
        change(&mut lease);
        assert!(af_xdp::receive(lease).is_err(), "{what}");
    }
    let mut lease = again();
    lease.sockets[0] = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    assert_eq!(af_xdp::receive(lease).err().unwrap().code(), "EPROTOTYPE");
    assert!(af_xdp::receive(again()).is_ok());
}

/// Writes over every index and every entry of a ring, as a client may that has it mapped.
fn scribble(socket: &XskSocket, kind: RingKind, seed: u8) {
    let (mapping, offsets) = socket.map_ring(kind, RING).unwrap();
    let end = mapping.len();
    let first = offsets.entries as usize;
    for at in (0..end).filter(|at| *at >= first || *at < 4) {
        let byte = seed.wrapping_mul(31).wrapping_add(at as u8);
        // SAFETY: `at` lies inside the mapping, which nobody reads in this process meanwhile but as the bytes that
        // anybody may have written there.
        unsafe { mapping.base().as_ptr().add(at).write_volatile(byte) };
    }
}

#[test]
fn rubbish_in_every_ring_harms_nobody_but_its_writer() {
    let Some(lab) = Lab::new("rubbish_in_every_ring_harms_nobody_but_its_writer", 1) else {
        return;
    };
    let granted = grant(&lab, &[0], true);
    let hostile = XskSocket::received(copy(&granted.sockets[0])).unwrap();
    let steering = Steering::new(&lab, "card", XdpMode::Driver);
    steering.insert(0, granted.sockets[0].as_fd());
    let mut opened = af_xdp::receive(received(granted, true)).unwrap();
    let client = lab.client(PORT);
    let kernel = lab.server(7);
    let mut batch = Batch::new(&opened.port.umem, 32);
    for seed in 0..20u8 {
        for kind in [RingKind::Fill, RingKind::Rx, RingKind::Tx, RingKind::Completion] {
            scribble(&hostile, kind, seed);
        }
        // Wakeups without end, of rings that make no sense.
        for _ in 0..200 {
            let _ = (hostile.wake_rx(), hostile.wake_tx());
        }
        client.send(b"into the rubbish").unwrap();
        for pair in &mut opened.port.queues {
            pair.rx.poll(&mut batch);
            batch.clear();
            pair.tx.send(&mut batch);
        }
        // The kernel's own traffic on the same card goes on.
        let other = lab.client(7);
        other.send(&[seed]).unwrap();
        let mut got = [0; 8];
        assert_eq!((kernel.recv(&mut got).unwrap(), got[0]), (1, seed));
    }
    assert_ne!(opened.sockets[0].check(), State::Gone);
}

#[test]
fn a_port_that_was_deleted_is_told_as_gone() {
    let Some(lab) = Lab::new("a_port_that_was_deleted_is_told_as_gone", 1) else {
        return;
    };
    let opened = af_xdp::receive(received(grant(&lab, &[0], true), true)).unwrap();
    assert_ne!(opened.sockets[0].check(), State::Gone);
    lab.near_run("ip link del card");
    assert_eq!(opened.sockets[0].check(), State::Gone);
}
