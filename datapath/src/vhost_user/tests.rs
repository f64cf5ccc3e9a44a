//! Messages through a stream in any pieces, and what is no message.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bifurcate_linux::Error;
use bifurcate_linux::event::EventFd;
use bifurcate_linux::stream::{Listener, Stream};
use proptest::prelude::*;

use super::message::{Addresses, MemoryRegion, PAYLOAD_MAX};
use super::*;

fn samples() -> Vec<Message> {
    vec![
        Message::new(request::SET_OWNER, Vec::new()),
        Message::of_number(request::SET_FEATURES, 1 << 32),
        Message::of_state(request::SET_VRING_NUM, 1, 256),
        Message::of_addresses(&Addresses {
            index: 1,
            desc: 2,
            used: 3,
            avail: 4,
            ..Addresses::default()
        }),
        Message::of_memory(&[MemoryRegion::default()]),
    ]
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages(cuts in proptest::collection::vec(1..40usize, 1..200)) {
        let bytes: Vec<u8> = samples().iter().flat_map(Message::bytes).collect();
        let (mut inbox, mut at, mut got) = (Inbox::default(), 0, Vec::new());
        let mut cuts = cuts.iter().cycle();
        while at < bytes.len() {
            let want = inbox.wanted();
            let count = want.min(*cuts.next().unwrap()).min(bytes.len() - at);
            inbox.space().0[..count].copy_from_slice(&bytes[at..at + count]);
            at += count;
            if let Some(message) = inbox.received(count).unwrap() {
                got.push((message.request, message.payload));
            }
        }
        let sent: Vec<_> = samples().into_iter().map(|m| (m.request, m.payload)).collect();
        prop_assert_eq!(got, sent);
        prop_assert_eq!(inbox.ended(), Ok(()));
    }

    /// Whatever arrives, nothing panics, and every message that is taken for one has a sound payload.
    #[test]
    fn any_bytes_give_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600), version: bool) {
        let mut bytes = bytes;
        if version && bytes.len() > 12 {
            let size = bytes[8];
            bytes[4..12].copy_from_slice(&[1, 0, 0, 0, size, 0, 0, 0]);
        }
        let (mut inbox, mut at) = (Inbox::default(), 0);
        while at < bytes.len() {
            let count = inbox.wanted().min(bytes.len() - at);
            inbox.space().0[..count].copy_from_slice(&bytes[at..at + count]);
            at += count;
            match inbox.received(count) {
                Ok(Some(mut message)) => {
                    prop_assert!(message.payload.len() <= PAYLOAD_MAX);
                    let _ = (message.number(), message.state(), message.addresses(), message.memory(), message.event());
                }
                Ok(None) => {}
                Err(_) => return Ok(()),
            }
        }
    }
}

#[test]
fn what_a_message_says_is_what_was_put_in() {
    let addresses = Addresses {
        index: 3,
        flags: 1,
        desc: 1 << 40,
        used: 5,
        avail: u64::MAX,
        log: 7,
    };
    assert_eq!(Message::of_addresses(&addresses).addresses(), Ok(addresses));
    let state = Message::of_state(request::SET_VRING_NUM, 1, 256).state().unwrap();
    assert_eq!((state.index, state.num), (1, 256));
    assert_eq!(Message::of_number(2, 99).number(), Ok(99));
}

#[test]
fn a_payload_of_another_length_is_refused() {
    let short = Message::new(request::SET_VRING_ADDR, vec![0; 39]);
    assert_eq!(
        short.addresses(),
        Err(Malformed::Size(request::SET_VRING_ADDR, 39))
    );
    assert_eq!(short.number(), Err(Malformed::Size(request::SET_VRING_ADDR, 39)));
    let mut table = Message::of_memory(&[MemoryRegion::default(); 8]);
    table.payload[0] = 9;
    assert_eq!(table.memory(), Err(Malformed::Regions(9)));
    table.payload[0] = 8;
    assert_eq!(
        table.memory(),
        Err(Malformed::Descriptors(request::SET_MEM_TABLE, 0))
    );
    table.payload.truncate(263);
    assert_eq!(table.memory(), Err(Malformed::Size(request::SET_MEM_TABLE, 263)));
}

#[test]
fn the_wrong_number_of_descriptors_is_refused() {
    let fd = || EventFd::new().unwrap().into();
    let mut kick = Message::of_number(request::SET_VRING_KICK, 1);
    assert_eq!(
        kick.event().unwrap_err(),
        Malformed::Descriptors(request::SET_VRING_KICK, 0)
    );
    kick.fds = vec![fd(), fd()];
    assert_eq!(
        kick.event().unwrap_err(),
        Malformed::Descriptors(request::SET_VRING_KICK, 2)
    );
    let mut none = Message::of_number(request::SET_VRING_KICK, 0x101);
    assert!(matches!(none.event(), Ok((1, None))));
    none.fds = vec![fd()];
    assert!(none.event().is_err());
}

#[test]
fn a_reply_comes_with_its_descriptors_and_the_end_is_told() {
    let (near, far) = Stream::pair().unwrap();
    let (mut near, mut far) = (Link::new(near), Link::new(far));
    let event = EventFd::new().unwrap();
    far.send(
        &Message::of_number(request::GET_FEATURES, 5).as_reply(),
        &[event.as_fd()],
    )
    .unwrap();
    let ask = Message::new(request::GET_FEATURES, Vec::new());
    let reply = near.ask(&ask, &[], Duration::from_secs(1)).unwrap();
    assert_eq!((reply.number(), reply.fds.len()), (Ok(5), 1));
    assert_eq!(far.receive().unwrap().unwrap().request, request::GET_FEATURES);
    assert!(far.receive().unwrap().is_none());
    let error = near.ask(&ask, &[], Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.code(), "ETIMEDOUT");
    drop(near);
    assert!(
        far.receive().unwrap().is_some(),
        "the request that was not answered"
    );
    assert_eq!(far.receive().unwrap_err().code(), "ECONNRESET");
}

#[test]
fn a_port_that_is_closed_does_not_wait_for_an_answer_that_nobody_gives() {
    let (near, far) = Stream::pair().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let service = Service::start("test", Source::One(Some(near)), move |mut link, _| {
        let ask = Message::new(request::GET_FEATURES, Vec::new());
        let answer = link.ask(&ask, &[], Duration::from_secs(60)).map(drop);
        tell.send(answer.clone()).unwrap();
        answer
    })
    .unwrap();
    let mut far = Link::new(far);
    while far.receive().unwrap().is_none() {
        std::thread::yield_now();
    }
    drop(service);
    assert_eq!(told.recv().unwrap().unwrap_err().code(), "ECANCELED");
}

#[test]
fn a_socket_whose_every_connection_fails_is_tried_again_at_intervals() {
    let path = std::env::temp_dir().join(format!("bf-service-{}", std::process::id()));
    let (begin, listener) = (Instant::now(), Listener::bind(&path).unwrap());
    let source = Source::at(&path, false).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let service = Service::start("test", source, move |_, _| {
        tell.send(()).unwrap();
        Err(Error::new("vhost-user", "refused", 95))
    })
    .unwrap();
    for _ in 0..4 {
        while told.recv_timeout(Duration::from_millis(1)).is_err() {
            let _ = listener.accept().unwrap();
        }
    }
    let connections = service.inner().status().connections;
    // The first is there at once, and each other follows a pause, however long this took.
    let most = 1 + begin.elapsed().as_millis() / 100;
    assert!(u128::from(connections) <= most, "{connections} of {most}");
    drop(service);
    drop(listener);
}

#[test]
fn a_message_that_ends_in_the_middle_is_an_error_of_its_own() {
    let (near, far) = Stream::pair().unwrap();
    let mut far = Link::new(far);
    let bytes = Message::of_number(request::SET_FEATURES, 5).bytes();
    near.send(&bytes[..17], &[], Duration::from_secs(1)).unwrap();
    assert!(far.receive().unwrap().is_none());
    drop(near);
    let error = far.receive().unwrap_err();
    assert_eq!(error.code(), "EPROTO");
    assert!(error.to_string().contains("after 17 bytes"), "{error}");
}

#[test]
fn descriptors_do_not_pile_up_beside_a_message_that_never_ends() {
    let mut inbox = Inbox::default();
    let mut come = |count: usize| {
        let (_, fds) = inbox.space();
        fds.extend((0..count).map(|_| OwnedFd::from(EventFd::new().unwrap())));
        inbox.received(1)
    };
    assert!(come(8).unwrap().is_none());
    assert_eq!(come(1).unwrap_err(), Malformed::Descriptors(0, 9));
}
