//! IP addresses of interfaces (rtnetlink(7), RTM_*ADDR).

use super::message::{Message, Received, attributes, flag, u32_at};
use super::socket::{Protocol, Socket};
use crate::Result;
use std::net::IpAddr;

/// An address that an interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub ifindex: u32,
    /// The address itself.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix: u8,
}

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// struct ifaddrmsg.
const IFADDRMSG: usize = 8;
/// IFA_F_NODAD: usable at once, without asking the neighbours first.
const IFA_F_NODAD: u8 = 2;

/// Every address of the calling thread's namespace.
pub fn addresses() -> Result<Vec<Address>> {
    Socket::open(Protocol::Route)?.dump(
        "netlink(RTM_GETADDR)",
        &Message::new(RTM_GETADDR, 0, &[0; IFADDRMSG]),
        read,
    )
}

/// Gives interface `ifindex` an address; EEXIST when it has it. An IPv6 address is usable at once.
pub fn add(address: &Address) -> Result<()> {
    let args = format!(
        "ifindex={} {}/{}",
        address.ifindex, address.address, address.prefix
    );
    Socket::open(Protocol::Route)?.change("netlink(RTM_NEWADDR)", &args, adding(address))
}

fn adding(address: &Address) -> Message {
    let (family, flags) = match address.address {
        IpAddr::V4(_) => (libc::AF_INET, 0),
        IpAddr::V6(_) => (libc::AF_INET6, IFA_F_NODAD),
    };
    let mut body = [family as u8, address.prefix, flags, 0, 0, 0, 0, 0];
    body[4..].copy_from_slice(&address.ifindex.to_ne_bytes());
    let bytes = match &address.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Message::new(RTM_NEWADDR, flag::CREATE | flag::EXCL, &body)
        .attribute(IFA_LOCAL, &bytes)
        .attribute(IFA_ADDRESS, &bytes)
}

/// IFA_LOCAL is the interface's own address; IFA_ADDRESS is the peer's on a point-to-point link.
pub(super) fn read(received: &Received<'_>) -> Option<Address> {
    if received.kind != RTM_NEWADDR {
        return None;
    }
    let find = |kind| {
        attributes(received.body.get(IFADDRMSG..)?)
            .find(|a| a.kind == kind)?
            .address()
    };
    Some(Address {
        ifindex: u32_at(received.body, 4)?,
        address: find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?,
        prefix: *received.body.get(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn what_is_written_reads_back() {
        for (text, prefix) in [("10.1.2.3", 24), ("fd00::1", 64)] {
            let address = Address {
                ifindex: 5,
                address: text.parse().unwrap(),
                prefix,
            };
            let bytes = adding(&address).finish(1, 0);
            assert_eq!(read(&messages(&bytes).next().unwrap()), Some(address));
        }
    }

    #[test]
    fn of_a_point_to_point_link_the_own_address_counts() {
        let bytes = Message::new(RTM_NEWADDR, 0, &[2, 32, 0, 0, 4, 0, 0, 0])
            .attribute(IFA_ADDRESS, &[10, 0, 0, 2])
            .attribute(IFA_LOCAL, &[10, 0, 0, 1])
            .finish(1, 0);
        assert_eq!(
            read(&messages(&bytes).next().unwrap())
                .unwrap()
                .address
                .to_string(),
            "10.0.0.1"
        );
    }
}
