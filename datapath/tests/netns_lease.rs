//! A lease's sockets: handed over and used, and what whoever got them cannot do with them.

mod veth;

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bifurcate_datapath::device::af_xdp::{self, BusyPoll, Config, Granted, Received, ZeroCopy};
use bifurcate_datapath::device::{LeftToCard, QueuePair, State};
use bifurcate_datapath::frame::{Batch, Pages, UmemConfig};
use bifurcate_linux::bpf::XdpMode;
use bifurcate_linux::memory::{Mapping, MemoryFile, PageKind};
use bifurcate_linux::xsk::{Bind, CopyMode, RingKind, XskSocket};
use veth::{Lab, PATIENCE, PORT, Steering, payload, turn_around, udp_frame, until};

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

/// One socket, polled busily.
fn grant_busy(lab: &Lab) -> Granted {
    let config = Config {
        ring_size: RING,
        zero_copy: ZeroCopy::Off,
        busy_poll: Some(BusyPoll::default()),
        ..Config::new("card")
    };
    let grant = lab.near.within(|| af_xdp::grant(&config, &POOL, true));
    grant.unwrap()
}

/// An option of a socket at the level SOL_SOCKET.
fn option(socket: &OwnedFd, name: i32) -> i32 {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    let place = (&raw mut value).cast();
    // SAFETY: both pointers are of variables that live longer than the call, and `len` is what `value` has room for.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, place, &raw mut len) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    value
}

/// Sets one; the errno where the kernel refuses.
fn set_option(socket: &OwnedFd, name: i32, value: i32) -> Result<(), i32> {
    let (place, len) = ((&raw const value).cast(), size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointer is of a variable that lives longer than the call, which reads `len` bytes there.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, place, len) };
    if done == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap())
}

/// Does it on a thread without any capability, as a client is.
fn without_rights<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// _LINUX_CAPABILITY_VERSION_3 (linux/capability.h): two words each of effective, permitted and inheritable ones.
    const VERSION: u32 = 0x2008_0522;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (header, none) = ([VERSION, 0], [0u32; 6]);
            // SAFETY: header and data are of the sizes of that version, and only read; the calling thread alone changes.
            let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            work()
        });
        thread.join().unwrap()
    })
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
    // Busy polling, which would keep the card's interrupts off. Nothing but the right is missing.
    assert!(!granted.obtained.busy_poll);
    let (prefer, budget) = (libc::SO_PREFER_BUSY_POLL, libc::SO_BUSY_POLL_BUDGET);
    let held = &granted.sockets[0];
    let asked = without_rights(|| (set_option(held, prefer, 1), set_option(held, budget, 64)));
    assert_eq!(asked, (Err(libc::EPERM), Err(libc::EPERM)));
    let error = without_rights(|| socket.busy_poll(20, 64)).unwrap_err();
    assert_eq!(error.code(), "EPERM", "{error}");
    assert_eq!(option(held, prefer), 0);
    assert_eq!(
        (set_option(held, prefer, 1), set_option(held, budget, 64)),
        (Ok(()), Ok(()))
    );
}

#[test]
fn busy_polling_is_set_by_the_broker_and_a_client_can_only_lessen_it() {
    let Some(lab) = Lab::new(
        "busy_polling_is_set_by_the_broker_and_a_client_can_only_lessen_it",
        1,
    ) else {
        return;
    };
    let granted = grant_busy(&lab);
    assert!(granted.obtained.busy_poll);
    let BusyPoll { micros, budget } = BusyPoll::default();
    let (micros, budget) = (micros as i32, budget as i32);
    let socket = copy(&granted.sockets[0]);
    assert_eq!(option(&socket, libc::SO_PREFER_BUSY_POLL), 1);
    assert_eq!(option(&socket, libc::SO_BUSY_POLL), micros);
    // The budget cannot be read. As large as it is anybody may set it, and no larger.
    let name = libc::SO_BUSY_POLL_BUDGET;
    let set = without_rights(|| {
        (
            set_option(&socket, name, budget),
            set_option(&socket, name, budget + 1),
        )
    });
    assert_eq!(set, (Ok(()), Err(libc::EPERM)));
    // And it receives.
    let steering = Steering::new(&lab, "card", XdpMode::Driver);
    steering.insert(0, socket.as_fd());
    let mut opened = af_xdp::receive(received(granted, true)).unwrap();
    assert!(opened.obtained.busy_poll);
    let mut batch = Batch::new(&opened.port.umem, 32);
    let client = lab.client(PORT);
    for number in 0..20u8 {
        client.send(&[number]).unwrap();
        let rx = &mut opened.port.queues[0].rx;
        until("the datagram", || without_rights(|| rx.poll(&mut batch)) == 1);
        let frame = batch.take(0).unwrap();
        // What is shorter than a frame can be is filled up.
        assert_eq!(payload(batch.cache().bytes(&frame))[0], number);
        batch.cache_mut().give(frame);
        batch.clear();
    }
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

/// Writes over headers in every chunk of a pool, whoever has it, until it is told to stop; gives how often.
fn scribble_frames(memory: &Mapping, stop: &AtomicBool) -> u64 {
    let (mut random, mut rounds) = (0x9e37_79b9_7f4a_7c15u64, 0);
    while !stop.load(Ordering::Relaxed) {
        for chunk in (0..memory.len()).step_by(POOL.frame_size as usize) {
            // xorshift64 (Marsaglia, 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The end of the room before the frame (XDP_PACKET_HEADROOM, 256), its headers, and what they carry.
            let at = chunk + 192 + (random >> 8) as usize % 192;
            // SAFETY: `at` lies inside the mapping, which nobody reads in this process; others read, by another
            // mapping, bytes that anybody may have written there.
            unsafe { memory.base().as_ptr().add(at).write_volatile(random as u8) };
        }
        rounds += 1;
    }
    rounds
}

/// Tells it when it goes out of scope, also by a failure.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends three answers, and one that may not go out before anybody has spoilt it; gives how many the queue took.
fn send_answers(pair: &mut QueuePair, batch: &mut Batch, answer: &[u8]) -> u64 {
    for wrong in [0, 0, 0, 1] {
        let mut bytes = answer.to_vec();
        bytes[35] ^= wrong;
        let frame = batch.cache_mut().copy_in(&bytes).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    batch.sending_to(0);
    let sent = pair.tx.send(batch);
    batch.clear();
    sent as u64
}

/// Adds every frame that a receiver has by now.
fn catch(mut receiver: &std::fs::File, came: &mut Vec<Vec<u8>>) {
    let mut frame = [0; 2048];
    while let Ok(len) = receiver.read(&mut frame) {
        came.push(frame[..len].to_vec());
    }
}

#[test]
fn rubbish_in_the_memory_of_frames_gets_past_no_filter_and_harms_nobody() {
    let Some(lab) = Lab::new(
        "rubbish_in_the_memory_of_frames_gets_past_no_filter_and_harms_nobody",
        1,
    ) else {
        return;
    };
    let granted = grant(&lab, &[0], true);
    let memory = Mapping::shared(&MemoryFile::received(copy(&granted.memory)).unwrap()).unwrap();
    let steering = Steering::new(&lab, "card", XdpMode::Driver);
    steering.insert(0, granted.sockets[0].as_fd());
    // As on the far side of a lease's port: what is not from its service goes no further.
    let _filter = lab.only_from_port("wire");
    let receiver = lab.raw_receiver();
    let mut opened = af_xdp::receive(received(granted, true)).unwrap();
    let (client, kernel) = (lab.client(PORT), lab.server(7));
    let mut batch = Batch::new(&opened.port.umem, 32);
    let mut answer = udp_frame(b"an answer that is spoilt on its way", None);
    turn_around(&mut answer);
    let stop = AtomicBool::new(false);
    let (mut came, mut received, mut sent) = (Vec::new(), 0u64, 0u64);
    // What nobody spoils arrives as it is.
    sent += send_answers(&mut opened.port.queues[0], &mut batch, &answer);
    until("the answers", || {
        opened.port.queues[0].tx.send(&mut batch);
        catch(&receiver, &mut came);
        came.len() >= 3
    });
    assert_eq!(came, vec![answer.clone(); 3]);
    let mut rounds = 0u64;
    std::thread::scope(|scope| {
        let scribbler = scope.spawn(|| scribble_frames(&memory, &stop));
        let stopping = Stop(&stop);
        let end = Instant::now() + PATIENCE;
        for number in 0u32.. {
            // More rounds where the scribbler did not get to run while a frame was on its way.
            if number >= 500 && came.iter().any(|frame| *frame != answer) {
                break;
            }
            assert!(number < 500 || Instant::now() < end, "nothing is spoilt");
            rounds += 1;
            client.send(&number.to_ne_bytes()).unwrap();
            let pair = &mut opened.port.queues[0];
            until("the datagram", || pair.rx.poll(&mut batch) > 0);
            received += batch.len() as u64;
            batch.clear();
            sent += send_answers(pair, &mut batch, &answer);
            if number % 50 == 0 {
                // The kernel's own traffic on the same card goes on.
                lab.client(7).send(&number.to_ne_bytes()).unwrap();
                let mut got = [0; 8];
                assert_eq!(kernel.recv(&mut got).unwrap(), 4);
                assert_eq!(got[..4], number.to_ne_bytes());
            }
            catch(&receiver, &mut came);
        }
        drop(stopping);
        assert!(scribbler.join().unwrap() > 0);
    });
    catch(&receiver, &mut came);
    // Of a frame that was spoilt into a tagged one the kernel has taken the tag before it is caught (skb_vlan_untag()).
    let taken = |frame: &Vec<u8>| answer.len() - frame.len();
    let forbidden = came
        .iter()
        .find(|frame| frame[34 - taken(frame)..36 - taken(frame)] != PORT.to_be_bytes());
    assert_eq!(forbidden, None);
    assert_ne!(opened.sockets[0].check(), State::Gone);
    let pair = &opened.port.queues[0];
    let (rx, tx) = (pair.rx.counters().totals(), pair.tx.counters().totals());
    assert_eq!((rx.received, rx.invalid_descriptor, tx.sent), (received, 0, sent));
    assert_eq!(received, rounds);
    assert!(sent > came.len() as u64, "{sent} were sent, {} came", came.len());
    // It ends as any other, and every frame is there.
    let umem = std::sync::Arc::clone(&opened.port.umem);
    drop((opened, batch));
    assert_eq!(umem.in_depot().0, POOL.frames as usize);
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
