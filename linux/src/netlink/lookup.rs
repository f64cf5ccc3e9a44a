//! What the kernel itself would do with a packet: its routing decision for one address (RTM_GETROUTE).

use super::message::{Attribute, Message, Received, attributes, u32_at};
use super::socket::{Protocol, Socket};
use crate::Result;
use std::net::IpAddr;

/// The packet that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it says it comes from.
    pub source: IpAddr,
    /// The interface it arrived on.
    pub ifindex: u32,
}

/// What a route does with a packet (include/uapi/linux/rtnetlink.h, RTN_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Out of an interface: the packet is forwarded.
    Unicast,
    /// To this machine's own sockets.
    Local,
    /// To this machine, as a broadcast.
    Broadcast,
    /// To this machine, as one of several.
    Anycast,
    /// To whoever joined the group.
    Multicast,
    /// Dropped in silence.
    Blackhole,
    /// Answered with "unreachable".
    Unreachable,
    /// Answered with "prohibited".
    Prohibit,
    /// Any other.
    Other,
}

/// The kernel's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What is done with the packet.
    pub kind: Kind,
    /// The interface it would leave by; the loopback for local ones.
    pub ifindex: Option<u32>,
    /// The router it would go through.
    pub gateway: Option<IpAddr>,
}

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const CALL: &str = "netlink(RTM_GETROUTE)";
/// struct rtmsg: family, lengths of the prefixes, tos, table, protocol, scope, type, flags.
const RTMSG: usize = 12;

/// Asks how the kernel would treat a packet that arrives. A packet that it refuses (a martian address, a source that
/// does not lead back to the interface, no route) is an error: EINVAL, EXDEV, EHOSTUNREACH, ENETUNREACH.
pub fn decide(question: &Question) -> Result<Decision> {
    let (family, bits) = match question.destination {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let mut body = [0; RTMSG];
    body[..3].copy_from_slice(&[family as u8, bits, bits]);
    let message = Message::new(RTM_GETROUTE, 0, &body)
        .attribute(RTA_DST, &octets(question.destination))
        .attribute(RTA_SRC, &octets(question.source))
        .number(RTA_IIF, question.ifindex);
    let args = format!(
        "to={} from={} iif={}",
        question.destination, question.source, question.ifindex
    );
    let mut found = None;
    Socket::open(Protocol::Route)?.get(CALL, &args, message, &mut |received| found = read(received))?;
    found.ok_or_else(|| crate::Error::new(CALL, args, libc::ENETUNREACH))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn read(received: &Received<'_>) -> Option<Decision> {
    if received.kind != RTM_NEWROUTE {
        return None;
    }
    let kind = match received.body.get(7)? {
        1 => Kind::Unicast,
        2 => Kind::Local,
        3 => Kind::Broadcast,
        4 => Kind::Anycast,
        5 => Kind::Multicast,
        6 => Kind::Blackhole,
        7 => Kind::Unreachable,
        8 => Kind::Prohibit,
        _ => Kind::Other,
    };
    u32_at(received.body, 8)?;
    let all: Vec<_> = attributes(received.body.get(RTMSG..)?).collect();
    let find = |kind| all.iter().find(|attribute| attribute.kind == kind);
    Some(Decision {
        kind,
        ifindex: find(RTA_OIF).and_then(Attribute::u32),
        gateway: find(RTA_GATEWAY).and_then(Attribute::address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn an_answer_is_read_and_a_short_one_is_none() {
        let body = [2, 32, 32, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        let bytes = Message::new(RTM_NEWROUTE, 0, &body)
            .number(RTA_OIF, 7)
            .attribute(RTA_GATEWAY, &[10, 0, 0, 1])
            .finish(1, 0);
        let received = messages(&bytes).next().unwrap();
        assert_eq!(
            read(&received),
            Some(Decision {
                kind: Kind::Unicast,
                ifindex: Some(7),
                gateway: Some("10.0.0.1".parse().unwrap())
            })
        );
        let short = Received {
            body: &received.body[..11],
            ..received
        };
        assert_eq!(read(&short), None);
    }
}
