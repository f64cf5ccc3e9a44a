//! What the device end refuses of a driver: each request that cannot be, by itself.

use std::os::fd::{AsFd, OwnedFd};

use bifurcate_linux::event::EventFd;
use bifurcate_linux::memory::{MemoryFile, PageKind};

use super::Session;
use crate::ring::virtio::feature;
use crate::vhost_user::message::{Addresses, MemoryRegion};
use crate::vhost_user::{Message, PROTOCOL_FEATURES, request};

const PAGE: u64 = 4096;

fn memory(pages: usize) -> OwnedFd {
    let file = MemoryFile::create("bf-vhost-test", pages * PAGE as usize, PageKind::Ordinary).unwrap();
    file.as_fd().try_clone_to_owned().unwrap()
}

fn region(guest: u64, size: u64, offset: u64) -> MemoryRegion {
    MemoryRegion {
        guest,
        size,
        user: guest,
        offset,
    }
}

fn table(regions: &[MemoryRegion], fds: Vec<OwnedFd>) -> Message {
    let mut message = Message::of_memory(regions);
    message.fds = fds;
    message
}

fn agreed() -> Session {
    let mut session = Session::alone(1).unwrap();
    let features = feature::VERSION_1 | PROTOCOL_FEATURES;
    session
        .handle(Message::of_number(request::SET_FEATURES, features))
        .unwrap();
    session
}

/// The error of a message to a session that has agreed on features and has 16 pages of memory at address 0.
fn refused(message: Message) -> String {
    let mut session = agreed();
    session
        .handle(table(&[region(0, 16 * PAGE, 0)], vec![memory(16)]))
        .unwrap();
    session.handle(message).unwrap_err().to_string()
}

fn event(what: u32, index: u64, fds: usize) -> Message {
    let mut message = Message::of_number(what, index);
    message.fds = (0..fds).map(|_| EventFd::new().unwrap().into()).collect();
    message
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let refused = |regions: &[MemoryRegion], fds: Vec<OwnedFd>| {
        let mut session = agreed();
        session.handle(table(regions, fds)).unwrap_err().to_string()
    };
    let both = || vec![memory(2), memory(2)];
    let overlap = [region(0, 2 * PAGE, 0), region(PAGE, PAGE, 0)];
    assert!(refused(&overlap, both()).contains("overlap"));
    for (of, why) in [
        (region(0, 3 * PAGE, 0), "beyond the end"),
        (region(0, PAGE, 2 * PAGE), "beyond the end"),
        (region(0, u64::MAX, PAGE), "beyond the end"),
        (region(0, 0, 0), "empty"),
        (region(u64::MAX - 10, PAGE, 0), "wraps around"),
    ] {
        let error = refused(&[of], vec![memory(2)]);
        assert!(error.contains(why), "{of:?}: {error}");
    }
    // A file of a disk, or of a file system in user space, whose pages may never come.
    let program = std::fs::File::open("/proc/self/exe").unwrap().into();
    assert!(refused(&[region(0, PAGE, 0)], vec![program]).contains("no memory file"));
    let pipe = EventFd::new().unwrap().into();
    assert!(refused(&[region(0, PAGE, 0)], vec![pipe]).contains("no memory file"));
    assert!(refused(&[region(0, PAGE, 0)], vec![]).contains("0 descriptors"));
    assert!(refused(&[region(0, PAGE, 0)], both()).contains("2 descriptors"));
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let addresses = |index, desc, used, avail| {
        Message::of_addresses(&Addresses {
            index,
            desc,
            used,
            avail,
            ..Addresses::default()
        })
    };
    for (message, why) in [
        (
            Message::of_number(request::SET_FEATURES, 1 | feature::CTRL_VQ),
            "for VIRTIO_NET_F_CTRL_VQ, feature bit 0, which was not offered",
        ),
        (Message::of_number(request::SET_FEATURES, 0), "legacy"),
        (
            Message::of_number(request::SET_PROTOCOL_FEATURES, 1 << 40),
            "offered",
        ),
        (Message::of_state(request::SET_VRING_NUM, 0, 0), "0 slots"),
        (Message::of_state(request::SET_VRING_NUM, 0, 100), "100 slots"),
        (Message::of_state(request::SET_VRING_NUM, 0, 65536), "65536 slots"),
        (Message::of_state(request::SET_VRING_NUM, 2, 16), "ring 2 of 2"),
        (
            Message::of_state(request::GET_VRING_BASE, u32::MAX, 0),
            "ring 4294967295",
        ),
        (addresses(9, 0, 0, 0), "ring 9"),
        (event(request::SET_VRING_KICK, 0, 0), "0 descriptors"),
        (event(request::SET_VRING_CALL, 0, 2), "2 descriptors"),
        (event(request::SET_VRING_CALL, 0xff, 1), "ring 255"),
        (event(request::SET_FEATURES, 0, 1), "1 descriptors"),
        (Message::new(99, Vec::new()), "request 99"),
        (Message::new(request::SET_LOG_BASE, vec![0; 16]), "request 6"),
        (Message::new(request::SET_VRING_NUM, vec![0; 4]), "4 bytes"),
    ] {
        let error = refused(message);
        assert!(error.contains(why), "{why}: {error}");
    }
    let (pipe, _other) = bifurcate_linux::stream::Stream::pair().unwrap();
    let mut message = Message::of_number(request::SET_VRING_KICK, 0);
    message.fds = vec![pipe.as_fd().try_clone_to_owned().unwrap()];
    assert!(refused(message).contains("no eventfd"));
}

/// A session in which ring 0 only waits for its kick.
fn nearly(addresses: Addresses, size: u32, base: u32) -> Session {
    let mut session = agreed();
    session
        .handle(table(&[region(0, 16 * PAGE, 0)], vec![memory(16)]))
        .unwrap();
    for message in [
        Message::of_state(request::SET_VRING_NUM, 0, size),
        Message::of_state(request::SET_VRING_BASE, 0, base),
        Message::of_addresses(&addresses),
        Message::of_state(request::SET_VRING_ENABLE, 0, 1),
        event(request::SET_VRING_CALL, 0, 1),
    ] {
        session.handle(message).unwrap();
    }
    session
}

#[test]
fn a_ring_runs_when_everything_is_there_and_says_where_it_stood() {
    let places = Addresses {
        desc: 0,
        avail: PAGE,
        used: 2 * PAGE,
        ..Addresses::default()
    };
    let mut session = nearly(places, 16, 7);
    assert!(!session.is_live());
    session.handle(event(request::SET_VRING_KICK, 0, 1)).unwrap();
    assert!(session.is_live());
    let reply = session
        .handle(Message::of_state(request::GET_VRING_BASE, 0, 0))
        .unwrap()
        .unwrap();
    assert_eq!(reply.state().unwrap().num, 7);
    assert!(!session.is_live());
    // Kicked again, it goes on; disabled, it rests.
    session.handle(event(request::SET_VRING_KICK, 0, 1)).unwrap();
    assert!(session.is_live());
    session
        .handle(Message::of_state(request::SET_VRING_ENABLE, 0, 0))
        .unwrap();
    assert!(!session.is_live());
}

#[test]
fn without_protocol_features_a_ring_runs_that_nobody_enabled() {
    let places = Addresses {
        desc: 0,
        avail: PAGE,
        used: 2 * PAGE,
        ..Addresses::default()
    };
    for (features, runs) in [
        (feature::VERSION_1, true),
        (feature::VERSION_1 | PROTOCOL_FEATURES, false),
    ] {
        let mut session = Session::alone(1).unwrap();
        for message in [
            Message::of_number(request::SET_FEATURES, features),
            table(&[region(0, 16 * PAGE, 0)], vec![memory(16)]),
            Message::of_state(request::SET_VRING_NUM, 0, 16),
            Message::of_addresses(&places),
            event(request::SET_VRING_KICK, 0, 1),
        ] {
            session.handle(message).unwrap();
        }
        assert_eq!(session.is_live(), runs, "{features:#x}");
    }
}

#[test]
fn a_ring_outside_of_memory_or_not_aligned_is_refused_when_it_is_to_run() {
    for (desc, avail, used, why) in [
        (16 * PAGE, PAGE, 2 * PAGE, "descriptor table"),
        (16 * PAGE - 16, PAGE, 2 * PAGE, "descriptor table"),
        (0, 16 * PAGE - 4, 2 * PAGE, "available ring"),
        (0, PAGE, u64::MAX, "used ring"),
        (8, PAGE, 2 * PAGE, "not aligned"),
        (0, PAGE + 1, 2 * PAGE, "not aligned"),
        (0, PAGE, 2 * PAGE + 2, "not aligned"),
    ] {
        let addresses = Addresses {
            desc,
            avail,
            used,
            ..Addresses::default()
        };
        let mut session = nearly(addresses, 16, 0);
        let error = session
            .handle(event(request::SET_VRING_KICK, 0, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}
