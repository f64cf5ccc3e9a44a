//! What stands on an interface and goes with it, its addresses and routes: saved as the kernel tells them, and put
//! back on the interface that comes after it.

use super::message::{Attribute, Message, Received, attributes, flag, messages, u16_at, u32_at};
use super::socket::{Protocol, Socket};
use crate::{Error, Result};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// struct ifaddrmsg, struct rtmsg, struct rtnexthop (include/uapi/linux/if_addr.h, rtnetlink.h).
const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;
const RTNEXTHOP: usize = 8;
/// The route was made by the kernel itself, by a redirect or by a router's advertisement: it comes again by itself.
const RTPROT_REDIRECT: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;
const RTM_F_CLONED: u32 = 0x200;
/// Of a next hop's flags those that a user sets; the others tell its state, and the kernel takes none of them back.
const RTNH_F_SET: u8 = 2 | 4;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
/// A next hop object: it goes with its interface, and what it said stands in the route's other attributes too.
const RTA_NH_ID: u16 = 30;

/// The addresses and routes of interface `ifindex`, a netlink message each, in the order in which they can be made
/// again. Routes that come by themselves (the kernel's own, a router's advertisement) are left out.
///
/// # Errors
/// Whatever the dumps report.
pub fn save(ifindex: u32) -> Result<Vec<Vec<u8>>> {
    let mut socket = Socket::open(Protocol::Route)?;
    let whole = |received: &Received<'_>| Message::new(received.kind, 0, received.body).finish(0, 0);
    let addresses = socket.dump(
        "netlink(RTM_GETADDR)",
        &Message::new(RTM_GETADDR, 0, &[0; IFADDRMSG]),
        |received| is_address_of(received, ifindex).then(|| whole(received)),
    )?;
    let routes = socket.dump(
        "netlink(RTM_GETROUTE)",
        &Message::new(RTM_GETROUTE, 0, &[0; RTMSG]),
        |received| is_route_of(received, ifindex).then(|| whole(received)),
    )?;
    Ok([addresses, routes].concat())
}

/// Makes again what [`save`] gave of the interface that was `before`, on interface `now`. What is there already is
/// left as it is. Gives what the kernel refused, in words.
///
/// # Errors
/// Whatever making the socket reports; `EBADMSG` for bytes that are no such message.
pub fn restore(saved: &[Vec<u8>], before: u32, now: u32) -> Result<Vec<String>> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut left: Vec<Message> = saved
        .iter()
        .map(|bytes| moved(bytes, before, now))
        .collect::<Option<_>>()
        .ok_or_else(|| {
            Error::new(
                "netlink",
                "a saved address or route cannot be read",
                libc::EBADMSG,
            )
        })?;
    // A route through a router wants the route to the router first: once more, for as long as that helps.
    loop {
        let (mut refused, mut again) = (Vec::new(), Vec::new());
        let count = left.len();
        for message in left {
            let call = if message.kind() == RTM_NEWADDR {
                "netlink(RTM_NEWADDR)"
            } else {
                "netlink(RTM_NEWROUTE)"
            };
            match socket.change(call, &format!("ifindex={now}"), message.clone()) {
                Ok(()) => {}
                Err(error) if error.errno == libc::EEXIST => {}
                Err(error) => {
                    refused.push(error.to_string());
                    again.push(message);
                }
            }
        }
        if again.is_empty() || again.len() == count {
            return Ok(refused);
        }
        left = again;
    }
}

fn is_address_of(received: &Received<'_>, ifindex: u32) -> bool {
    received.kind == RTM_NEWADDR && u32_at(received.body, 4) == Some(ifindex)
}

fn is_route_of(received: &Received<'_>, ifindex: u32) -> bool {
    let body = received.body;
    let comes_again = matches!(
        body.get(5),
        Some(&(RTPROT_REDIRECT | RTPROT_KERNEL | RTPROT_RA)) | None
    );
    if received.kind != RTM_NEWROUTE || comes_again {
        return false;
    }
    if u32_at(body, 8).is_none_or(|flags| flags & RTM_F_CLONED != 0) {
        return false;
    }
    attributes(body.get(RTMSG..).unwrap_or(&[])).any(|attribute| match attribute.kind {
        RTA_OIF => attribute.u32() == Some(ifindex),
        RTA_MULTIPATH => hops(attribute.value).any(|(index, _)| index == ifindex),
        _ => false,
    })
}

/// The message that makes it again, on interface `now`.
fn moved(saved: &[u8], before: u32, now: u32) -> Option<Message> {
    let received = messages(saved).next()?;
    let (fixed, flags) = match received.kind {
        RTM_NEWADDR => (IFADDRMSG, flag::CREATE | flag::EXCL),
        RTM_NEWROUTE => (RTMSG, flag::CREATE | flag::EXCL),
        _ => return None,
    };
    let mut body = received.body.get(..fixed)?.to_vec();
    if received.kind == RTM_NEWADDR {
        body[4..8].copy_from_slice(&now.to_ne_bytes());
    } else {
        let set = u32_at(&body, 8)? & u32::from(RTNH_F_SET);
        body[8..12].copy_from_slice(&set.to_ne_bytes());
    }
    let message = Message::new(received.kind, flags, &body);
    Some(
        attributes(received.body.get(fixed..)?).fold(message, |message, attribute| {
            match (received.kind, attribute.kind) {
                (RTM_NEWROUTE, RTA_NH_ID) => message,
                (RTM_NEWROUTE, RTA_OIF) if attribute.u32() == Some(before) => message.number(RTA_OIF, now),
                (RTM_NEWROUTE, RTA_MULTIPATH) => {
                    message.attribute(RTA_MULTIPATH, &moved_hops(&attribute, before, now))
                }
                (_, kind) => message.attribute(kind, attribute.value),
            }
        }),
    )
}

fn moved_hops(attribute: &Attribute<'_>, before: u32, now: u32) -> Vec<u8> {
    let mut bytes = attribute.value.to_vec();
    for (index, at) in hops(attribute.value) {
        bytes[at + 2] &= RTNH_F_SET;
        if index == before {
            bytes[at + 4..at + 8].copy_from_slice(&now.to_ne_bytes());
        }
    }
    bytes
}

/// The interface of each next hop, and where it begins.
fn hops(bytes: &[u8]) -> impl Iterator<Item = (u32, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, at)?);
        bytes.get(at + RTNEXTHOP - 1)?;
        let hop = (u32_at(bytes, at + 4)?, at);
        at = (at + length.max(RTNEXTHOP)).next_multiple_of(4);
        Some(hop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(protocol: u8, fill: impl FnOnce(Message) -> Message) -> Vec<u8> {
        let body = [2, 24, 0, 0, 254, protocol, 0, 1, 17, 0, 0, 0];
        fill(Message::new(RTM_NEWROUTE, 0, &body)).finish(0, 0)
    }

    fn received(bytes: &[u8]) -> Received<'_> {
        messages(bytes).next().unwrap()
    }

    #[test]
    fn a_route_of_the_interface_is_saved_and_one_that_comes_again_is_not() {
        for (protocol, saved) in [(3, true), (4, true), (16, true), (2, false), (9, false)] {
            let bytes = route(protocol, |m| m.number(RTA_OIF, 7));
            assert_eq!(is_route_of(&received(&bytes), 7), saved, "protocol {protocol}");
            assert!(!is_route_of(&received(&bytes), 8));
        }
    }

    #[test]
    fn a_moved_route_leaves_by_the_new_interface_without_the_state_of_the_old() {
        let bytes = route(3, |m| {
            m.attribute(1, &[10, 0, 0, 0])
                .number(RTA_OIF, 7)
                .number(6, 100)
                .number(RTA_NH_ID, 5)
        });
        let moved = moved(&bytes, 7, 9).unwrap().finish(0, 0);
        let moved = received(&moved);
        assert_eq!(u32_at(moved.body, 8), Some(0), "RTNH_F_LINKDOWN is gone");
        let all: Vec<_> = attributes(&moved.body[RTMSG..])
            .map(|a| (a.kind, a.u32()))
            .collect();
        assert_eq!(all, [(1, Some(10)), (RTA_OIF, Some(9)), (6, Some(100))]);
    }

    #[test]
    fn of_several_next_hops_only_those_of_the_interface_move() {
        let hop = |ifindex: u8, flags: u8| [16, 0, flags, 0, ifindex, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1];
        let bytes = route(3, |m| {
            m.attribute(RTA_MULTIPATH, &[hop(7, 16 | 4), hop(3, 1)].concat())
        });
        assert!(is_route_of(&received(&bytes), 3) && is_route_of(&received(&bytes), 7));
        let moved = moved(&bytes, 7, 9).unwrap().finish(0, 0);
        let moved = received(&moved);
        let hops = attributes(&moved.body[RTMSG..]).next().unwrap().value;
        assert_eq!(hops, [hop(9, 4), hop(3, 0)].concat());
    }

    #[test]
    fn what_was_not_saved_here_is_refused() {
        for bytes in [vec![], vec![1; 40], Message::new(16, 0, &[0; 16]).finish(0, 0)] {
            assert!(moved(&bytes, 1, 2).is_none());
        }
        let cut = route(3, |m| m.attribute(RTA_MULTIPATH, &[255, 255, 0, 0]));
        assert!(moved(&cut, 1, 2).is_some(), "a next hop cut short moves nothing");
    }
}
