//! Any bytes at all, and answers of the kernel with bytes changed and cut off, are read within their bounds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::message::{Message, Received, attributes, messages};
use super::socket::answer;
use super::{address, lease, link, netdev, route, tc, watch};
use crate::sockets::{self, Transport};

/// The types of message that anything here reads: links, addresses, routes, filters, sockets, errors and ends.
const KINDS: [u16; 10] = [16, 17, 20, 24, 36, 44, 45, 2, 3, 0x11];

/// The struct that opens a message: a unicast route's, a link's, an address's, an error's, a socket's; or any bytes.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let socket = |bytes: Vec<u8>| [vec![2, 10], bytes].concat();
    prop_oneof![
        Just(vec![2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]),
        Just([vec![0, 0, 1, 0, 7, 0, 0, 0], vec![1; 8]].concat()),
        Just(vec![2, 24, 0, 0, 7, 0, 0, 0]),
        Just([(-16i32).to_ne_bytes().to_vec(), vec![20, 0, 0, 0], vec![0; 12]].concat()),
        vec(any::<u8>(), 60..80).prop_map(socket),
        vec(any::<u8>(), 0..24),
    ]
}

/// Gives `datagram` to everything that reads one.
fn read_everything(datagram: &[u8]) {
    let mut known = watch::Known::new();
    for received in messages(datagram) {
        let _ = link::read(&received);
        let _ = link::moved_away(&received);
        let _ = address::read(&received);
        let _ = route::read(&received);
        let _ = netdev::read(received.body);
        let _ = (netdev::read_family(received.body), lease::read(&received));
        let _ = tc::priority(&received, 1);
        let _ = answer("call", "args", &received);
        watch::apply(&mut known, &received, &mut Vec::new());
        for transport in [Transport::Tcp, Transport::Udp] {
            let _ = sockets::read(transport, &received);
        }
        deeper(received.body, 0);
    }
}

/// Reads attributes as every kind of value, and what is in them, wherever they may begin.
fn deeper(bytes: &[u8], depth: usize) {
    for attribute in attributes(bytes) {
        let _ = (
            attribute.number(),
            attribute.u32(),
            attribute.text(),
            attribute.address(),
        );
        if depth < 3 {
            deeper(attribute.value, depth + 1);
        }
    }
}

fn with_attributes(message: Message, attributes: &[(u16, Vec<u8>)], nested: bool) -> Message {
    let all = |message: Message| {
        attributes
            .iter()
            .fold(message, |message, (kind, value)| message.attribute(*kind, value))
    };
    let message = all(message);
    // IFLA_LINKINFO, IFLA_XDP and RTA_MULTIPATH have attributes in them.
    if nested {
        [18, 43, 9]
            .into_iter()
            .fold(message, |message, kind| message.nested(kind, all))
    } else {
        message
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_within_their_bounds(bytes in vec(any::<u8>(), 0..200)) {
        read_everything(&bytes);
        deeper(&bytes, 0);
        for kind in KINDS {
            let received = Received { kind, flags: 0x300, sequence: 0, body: &bytes };
            let _ = (link::read(&received), address::read(&received), route::read(&received));
            let _ = (sockets::read(Transport::Tcp, &received), answer("call", "", &received));
        }
    }

    #[test]
    fn an_answer_that_is_cut_short_or_changed_is_read_within_its_bounds(
        kind in proptest::sample::select(&KINDS[..]),
        flags: u16,
        body in head(),
        list in vec((0..64u16, vec(any::<u8>(), 0..24)), 0..8),
        nested: bool,
        changes in vec((any::<usize>(), any::<u8>()), 0..4),
        cut: usize,
    ) {
        let message = with_attributes(Message::new(kind, flags, &body), &list, nested);
        let mut bytes = message.finish(1, 0);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        read_everything(&bytes);
        read_everything(&bytes[..cut % bytes.len()]);
    }

    #[test]
    fn any_line_of_proc_is_read_or_left_out(line in "[ 0-9A-F:é]{0,120}") {
        let _ = sockets::row(Transport::Tcp, &line);
    }
}
