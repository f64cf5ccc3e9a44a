//! TCP and UDP sockets of a namespace: by sock_diag(7), or from /proc/net where the kernel has none.

use crate::netlink::message::{Message, Received};
use crate::netlink::socket::{Protocol, Socket};
use crate::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a socket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A TCP listener, or a UDP socket that takes datagrams from anybody.
    Listen,
    /// It has a peer.
    Established,
    /// Anything else, e.g. closing.
    Other,
}

/// One socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// TCP or UDP.
    pub transport: Transport,
    /// Its own address and port.
    pub local: (IpAddr, u16),
    /// Its peer's, zero where it has none.
    pub remote: (IpAddr, u16),
    /// What it does.
    pub state: State,
    /// Its inode, by which /proc/PID/fd names its owner.
    pub inode: u32,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Sizes of struct inet_diag_req_v2 and inet_diag_msg (include/uapi/linux/inet_diag.h).
const REQUEST: usize = 56;
const ANSWER: usize = 72;
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// Every TCP and UDP socket of the calling thread's namespace, IPv4 and IPv6.
pub fn sockets() -> Result<Vec<Facts>> {
    let mut all = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for family in [libc::AF_INET, libc::AF_INET6] {
            all.extend(match diag(transport, family) {
                Ok(found) => found,
                // No sock_diag at all, or none for this family or transport.
                Err(error)
                    if error.is_unsupported()
                        || matches!(error.errno, libc::ENOENT | libc::EPROTONOSUPPORT | libc::EINVAL) =>
                {
                    from_proc(transport, family)?
                }
                Err(error) => return Err(error),
            });
        }
    }
    Ok(all)
}

fn diag(transport: Transport, family: i32) -> Result<Vec<Facts>> {
    let protocol = match transport {
        Transport::Tcp => libc::IPPROTO_TCP,
        Transport::Udp => libc::IPPROTO_UDP,
    };
    let mut body = [0; REQUEST];
    body[0] = family as u8;
    body[1] = protocol as u8;
    body[4..8].fill(0xff); // every state
    Socket::open(Protocol::SockDiag)?.dump(
        "netlink(SOCK_DIAG_BY_FAMILY)",
        &Message::new(SOCK_DIAG_BY_FAMILY, 0, &body),
        |received| read(transport, received),
    )
}

/// struct inet_diag_msg: family, state, timer, retransmits, then struct inet_diag_sockid (ports and
/// addresses in network order), five numbers, of which the last is the inode.
pub(crate) fn read(transport: Transport, received: &Received<'_>) -> Option<Facts> {
    let body = received.body.get(..ANSWER)?;
    if received.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let address = |at: usize| match i32::from(body[0]) {
        libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::new(
            body[at],
            body[at + 1],
            body[at + 2],
            body[at + 3],
        ))),
        libc::AF_INET6 => <[u8; 16]>::try_from(&body[at..at + 16])
            .ok()
            .map(|octets| IpAddr::V6(octets.into())),
        _ => None,
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    Some(Facts {
        transport,
        local: (address(8)?, port(4)),
        remote: (address(24)?, port(6)),
        state: state(transport, body[1]),
        inode: u32::from_ne_bytes(body[68..72].try_into().ok()?),
    })
}

fn state(transport: Transport, number: u8) -> State {
    match (transport, number) {
        (Transport::Tcp, TCP_LISTEN) | (Transport::Udp, TCP_CLOSE) => State::Listen,
        (_, TCP_ESTABLISHED) => State::Established,
        _ => State::Other,
    }
}

fn from_proc(transport: Transport, family: i32) -> Result<Vec<Facts>> {
    let file = match (transport, family) {
        (Transport::Tcp, libc::AF_INET) => "tcp",
        (Transport::Tcp, _) => "tcp6",
        (Transport::Udp, libc::AF_INET) => "udp",
        (Transport::Udp, _) => "udp6",
    };
    // /proc/net would be the first thread's namespace.
    let path = format!("/proc/thread-self/net/{file}");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .lines()
            .skip(1)
            .filter_map(|line| row(transport, line))
            .collect()),
        // A kernel without IPv6 has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", path, &error)),
    }
}

/// A row of proc_net_tcp(5): number, local, remote, state, queues, timer, retransmits, uid, timeout, inode.
pub(crate) fn row(transport: Transport, line: &str) -> Option<Facts> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote) = (endpoint(fields.next()?)?, endpoint(fields.next()?)?);
    let state = state(transport, u8::from_str_radix(fields.next()?, 16).ok()?);
    Some(Facts {
        transport,
        local,
        remote,
        state,
        inode: fields.nth(5)?.parse().ok()?,
    })
}

/// `0100007F:0035`: each 32 bits of the address printed as a number in host order, the port in plain hex.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let number = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(number.to_ne_bytes())
    });
    let octets = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_proc() {
        let line =
            "   0: 0100007F:0035 0A0200C0:D431 01 00000000:00000000 00:00000000 00000000  0 0 31337 1 0";
        let facts = row(Transport::Tcp, line).unwrap();
        assert_eq!(facts.local, ("127.0.0.1".parse().unwrap(), 53));
        assert_eq!(facts.remote, ("192.0.2.10".parse().unwrap(), 54321));
        assert_eq!((facts.state, facts.inode), (State::Established, 31337));
        let line = "  1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 5 2";
        let facts = row(Transport::Udp, line).unwrap();
        assert_eq!(
            (facts.local, facts.state),
            (("::1".parse().unwrap(), 53), State::Listen)
        );
        assert_eq!(row(Transport::Udp, "garbage"), None);
    }

    #[test]
    fn an_answer_of_sock_diag() {
        let mut body = [0; ANSWER];
        body[..2].copy_from_slice(&[2, TCP_LISTEN]);
        body[4..8].copy_from_slice(&[0, 22, 0, 0]);
        body[8..12].copy_from_slice(&[10, 1, 2, 3]);
        body[68..].copy_from_slice(&77u32.to_ne_bytes());
        let received = Received {
            kind: SOCK_DIAG_BY_FAMILY,
            flags: 0,
            sequence: 1,
            body: &body,
        };
        let facts = read(Transport::Tcp, &received).unwrap();
        assert_eq!(
            (facts.local, facts.state, facts.inode),
            (("10.1.2.3".parse().unwrap(), 22), State::Listen, 77)
        );
        assert_eq!(
            read(
                Transport::Tcp,
                &Received {
                    body: &body[..71],
                    ..received
                }
            ),
            None
        );
    }
}
