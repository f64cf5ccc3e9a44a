//! Links (rtnetlink(7), RTM_*LINK): every interface with its relations, and changes to one.

use super::message::{Attribute, Message, Received, attributes, flag, u16_at, u32_at};
use super::socket::{Protocol, Socket};
use crate::netns::Netns;
use crate::{Error, Result};
use std::os::fd::{AsFd, AsRawFd};

/// How an XDP program is attached to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpAttached {
    /// In the driver.
    Driver,
    /// In the stack.
    Generic,
    /// On the card.
    Hardware,
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// One interface. Numbers are the kernel's, the MTU in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(
    missing_docs,
    reason = "the fields are the kernel's own: rtnetlink(7), include/uapi/linux/if_link.h"
)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// IFLA_ADDRESS; as long as the link type has it, six bytes for Ethernet.
    pub mac: Vec<u8>,
    pub mtu: u32,
    /// IFF_UP: administratively up.
    pub up: bool,
    /// IFF_LOWER_UP: carrier.
    pub carrier: bool,
    /// ARPHRD_*.
    pub hardware: u16,
    pub loopback: bool,
    /// IFLA_INFO_KIND, none for hardware.
    pub kind: Option<String>,
    /// IFLA_MASTER: the bridge or bond above it.
    pub master: Option<u32>,
    /// IFLA_LINK: the lower device of a VLAN, the peer of a veth.
    pub link: Option<u32>,
    /// The peer or lower device is in another namespace, and `link` is a number there.
    pub link_elsewhere: bool,
    pub vlan_id: Option<u16>,
    pub rx_queues: u32,
    pub tx_queues: u32,
    pub xdp: Option<(XdpAttached, u32)>,
}

/// What to change of a link; what is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// New name, at most 15 bytes.
    pub name: Option<&'a str>,
    /// Move it to this namespace.
    pub netns: Option<&'a Netns>,
}

/// One end of a veth pair to be.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its namespace; none is the calling thread's.
    pub netns: Option<&'a Netns>,
    /// Receive queues.
    pub rx_queues: u32,
    /// Transmit queues.
    pub tx_queues: u32,
}

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(super) const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
/// Both stand in the RTM_DELLINK of a link that moved to another namespace.
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_NEW_IFINDEX: u16 = 49;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_LOWER_UP: u32 = 0x10000;
/// struct ifinfomsg.
const IFINFOMSG: usize = 16;

/// Every link of the calling thread's namespace.
pub fn links() -> Result<Vec<Link>> {
    Socket::open(Protocol::Route)?.dump("netlink(RTM_GETLINK)", &request(RTM_GETLINK, 0, 0), read)
}

/// The link named `name`; ENODEV when there is none.
pub fn link(name: &str) -> Result<Link> {
    one(
        &format!("dev={name}"),
        request(RTM_GETLINK, 0, 0).string(IFLA_IFNAME, check(name)?),
    )
}

/// The link of number `index`; ENODEV when there is none.
pub fn link_by_index(index: u32) -> Result<Link> {
    one(&format!("ifindex={index}"), request(RTM_GETLINK, 0, index))
}

fn one(args: &str, message: Message) -> Result<Link> {
    let mut found = None;
    let call = "netlink(RTM_GETLINK)";
    Socket::open(Protocol::Route)?.get(call, args, message, &mut |received| found = read(received))?;
    found.ok_or_else(|| Error::new(call, args, libc::ENODEV))
}

/// The Ethernet address of link `index`; ENODEV when there is no such link, EINVAL when it is no Ethernet.
pub fn mac(index: u32) -> Result<Mac> {
    let link = link_by_index(index)?;
    let none = |_| {
        Error::new(
            "netlink(RTM_GETLINK)",
            format!("ifindex={index} no Ethernet address"),
            libc::EINVAL,
        )
    };
    link.mac.try_into().map_err(none)
}

/// Creates a veth pair; each end is down.
pub fn create_veth(one: VethEnd<'_>, other: VethEnd<'_>) -> Result<()> {
    let (name, peer) = (check(one.name)?, check(other.name)?);
    let end = |message: Message, end: &VethEnd<'_>, name: &str| {
        let message = message
            .string(IFLA_IFNAME, name)
            .number(IFLA_NUM_RX_QUEUES, end.rx_queues)
            .number(IFLA_NUM_TX_QUEUES, end.tx_queues);
        place(message, end.netns)
    };
    let message = end(request(RTM_NEWLINK, flag::CREATE | flag::EXCL, 0), &one, name);
    let message = message.nested(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, "veth")
            .nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |at| end(at.fixed(&[0; IFINFOMSG]), &other, peer))
            })
    });
    let args = format!("veth {name} peer {peer}");
    Socket::open(Protocol::Route)?.change("netlink(RTM_NEWLINK)", &args, message)
}

/// Deletes link `index` (of a veth pair both ends).
pub fn delete(index: u32) -> Result<()> {
    let args = format!("ifindex={index}");
    Socket::open(Protocol::Route)?.change("netlink(RTM_DELLINK)", &args, request(RTM_DELLINK, 0, index))
}

/// Changes link `index`.
pub fn set(index: u32, change: &Change<'_>) -> Result<()> {
    let mut body = ifinfomsg(index);
    if let Some(up) = change.up {
        body[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
        body[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    let mut message = Message::new(RTM_SETLINK, 0, &body);
    if let Some(mtu) = change.mtu {
        message = message.number(IFLA_MTU, mtu);
    }
    if let Some(mac) = change.mac {
        message = message.attribute(IFLA_ADDRESS, &mac);
    }
    if let Some(name) = change.name {
        message = message.string(IFLA_IFNAME, check(name)?);
    }
    let args = format!(
        "ifindex={index} up={:?} mtu={:?} mac={:02x?} name={:?} netns={:?}",
        change.up,
        change.mtu,
        change.mac,
        change.name,
        change.netns.map(Netns::inode)
    );
    Socket::open(Protocol::Route)?.change("netlink(RTM_SETLINK)", &args, place(message, change.netns))
}

/// Gives link `index` another name. One that is up is taken down for it, which kernels before 6.2 insist on.
pub fn rename(index: u32, name: &str) -> Result<()> {
    let up = link_by_index(index)?.up;
    let turn = |on| {
        let up = Some(on);
        set(
            index,
            &Change {
                up,
                ..Change::default()
            },
        )
    };
    if up {
        turn(false)?;
    }
    let name = Some(name);
    let renamed = set(
        index,
        &Change {
            name,
            ..Change::default()
        },
    );
    if up {
        turn(true)?;
    }
    renamed
}

fn place(message: Message, netns: Option<&Netns>) -> Message {
    match netns {
        Some(netns) => message.number(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd() as u32),
        None => message,
    }
}

fn ifinfomsg(index: u32) -> [u8; IFINFOMSG] {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

/// A change of link `index`, to be filled.
pub(super) fn set_request(index: u32) -> Message {
    request(RTM_SETLINK, 0, index)
}

pub(super) fn request(kind: u16, flags: u16, index: u32) -> Message {
    Message::new(kind, flags, &ifinfomsg(index))
}

/// An interface name that the kernel can have (dev_valid_name, net/core/dev.c).
pub(super) fn check(name: &str) -> Result<&str> {
    let fits = !name.is_empty() && name.len() < 16 && name != "." && name != "..";
    if fits
        && !name
            .bytes()
            .any(|byte| matches!(byte, b'/' | b':' | 0) || byte.is_ascii_whitespace())
    {
        return Ok(name);
    }
    Err(Error::new(
        "netlink(RTM_GETLINK)",
        format!("dev={name:?} is no interface name"),
        libc::EINVAL,
    ))
}

/// Reads an RTM_NEWLINK or RTM_DELLINK.
pub(super) fn read(received: &Received<'_>) -> Option<Link> {
    if !matches!(received.kind, RTM_NEWLINK | RTM_DELLINK) {
        return None;
    }
    let flags = u32_at(received.body, 8)?;
    let mut link = Link {
        index: u32_at(received.body, 4)?,
        hardware: u16_at(received.body, 2)?,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        // A kernel without CONFIG_RPS does not tell the first (net/core/rtnetlink.c rtnl_fill_ifinfo()): one at least is there.
        rx_queues: 1,
        tx_queues: 1,
        ..Link::default()
    };
    for attribute in attributes(received.body.get(IFINFOMSG..)?) {
        match attribute.kind {
            IFLA_ADDRESS => link.mac = attribute.value.to_vec(),
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_MTU => link.mtu = attribute.u32()?,
            IFLA_LINK => link.link = attribute.u32().filter(|index| *index != 0),
            IFLA_LINK_NETNSID => link.link_elsewhere = true,
            IFLA_MASTER => link.master = attribute.u32().filter(|index| *index != 0),
            IFLA_NUM_RX_QUEUES => link.rx_queues = attribute.u32()?,
            IFLA_NUM_TX_QUEUES => link.tx_queues = attribute.u32()?,
            IFLA_LINKINFO => read_info(&mut link, &attribute),
            IFLA_XDP => link.xdp = read_xdp(&attribute),
            _ => {}
        }
    }
    Some(link)
}

/// True when an RTM_DELLINK says that its link lives on in another namespace.
pub(super) fn moved_away(received: &Received<'_>) -> bool {
    received.kind == RTM_DELLINK
        && attributes(received.body.get(IFINFOMSG..).unwrap_or(&[]))
            .any(|attribute| matches!(attribute.kind, IFLA_NEW_NETNSID | IFLA_NEW_IFINDEX))
}

fn read_info(link: &mut Link, info: &Attribute<'_>) {
    link.kind = info.nested().find(|a| a.kind == IFLA_INFO_KIND).map(|a| a.text());
    if link.kind.as_deref() == Some("vlan") {
        let data = info.nested().find(|a| a.kind == IFLA_INFO_DATA);
        let id = data.and_then(|data| data.nested().find(|a| a.kind == IFLA_VLAN_ID)?.number());
        link.vlan_id = id.and_then(|id| u16::try_from(id).ok());
    }
}

/// XDP_ATTACHED_*: 1 driver, 2 generic, 3 hardware, 4 several at once, each with an id of its own.
fn read_xdp(xdp: &Attribute<'_>) -> Option<(XdpAttached, u32)> {
    let find = |kind| xdp.nested().find(|a| a.kind == kind)?.u32();
    match find(IFLA_XDP_ATTACHED)? {
        1 => Some((XdpAttached::Driver, find(IFLA_XDP_PROG_ID)?)),
        2 => Some((XdpAttached::Generic, find(IFLA_XDP_PROG_ID)?)),
        3 => Some((XdpAttached::Hardware, find(IFLA_XDP_PROG_ID)?)),
        4 => [
            (XdpAttached::Driver, IFLA_XDP_DRV_PROG_ID),
            (XdpAttached::Generic, IFLA_XDP_SKB_PROG_ID),
            (XdpAttached::Hardware, IFLA_XDP_HW_PROG_ID),
        ]
        .into_iter()
        .find_map(|(mode, kind)| Some((mode, find(kind)?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    fn newlink(fill: impl FnOnce(Message) -> Message) -> Link {
        let mut body = ifinfomsg(7);
        body[2..4].copy_from_slice(&1u16.to_ne_bytes());
        body[8..12].copy_from_slice(&(IFF_UP | IFF_LOWER_UP).to_ne_bytes());
        let bytes = fill(Message::new(RTM_NEWLINK, 0, &body)).finish(1, 0);
        read(&messages(&bytes).next().unwrap()).unwrap()
    }

    #[test]
    fn a_vlan_with_its_relations() {
        let link = newlink(|m| {
            m.string(IFLA_IFNAME, "eth0.5")
                .number(IFLA_LINK, 3)
                .number(IFLA_MASTER, 9)
                .nested(IFLA_LINKINFO, |info| {
                    info.string(IFLA_INFO_KIND, "vlan")
                        .nested(IFLA_INFO_DATA, |data| {
                            data.attribute(IFLA_VLAN_ID, &5u16.to_ne_bytes())
                        })
                })
        });
        assert_eq!((link.index, link.name.as_str(), link.hardware), (7, "eth0.5", 1));
        assert_eq!((link.up, link.carrier, link.loopback), (true, true, false));
        assert_eq!(
            (link.link, link.master, link.vlan_id),
            (Some(3), Some(9), Some(5))
        );
        assert_eq!(link.kind.as_deref(), Some("vlan"));
    }

    #[test]
    fn a_link_whose_queues_are_not_told_has_one_of_each() {
        let link = newlink(|m| m.string(IFLA_IFNAME, "eth0"));
        assert_eq!((link.rx_queues, link.tx_queues), (1, 1));
        let link = newlink(|m| m.number(IFLA_NUM_RX_QUEUES, 8).number(IFLA_NUM_TX_QUEUES, 4));
        assert_eq!((link.rx_queues, link.tx_queues), (8, 4));
    }

    #[test]
    fn each_way_an_xdp_program_is_attached() {
        let xdp = |mode: u8, id: u16, program| {
            newlink(|m| {
                m.nested(IFLA_XDP, |x| {
                    x.attribute(IFLA_XDP_ATTACHED, &[mode]).number(id, program)
                })
            })
            .xdp
        };
        assert_eq!(xdp(0, IFLA_XDP_PROG_ID, 0), None);
        assert_eq!(xdp(1, IFLA_XDP_PROG_ID, 42), Some((XdpAttached::Driver, 42)));
        assert_eq!(xdp(2, IFLA_XDP_PROG_ID, 43), Some((XdpAttached::Generic, 43)));
        assert_eq!(xdp(4, IFLA_XDP_SKB_PROG_ID, 44), Some((XdpAttached::Generic, 44)));
    }

    #[test]
    fn names_that_no_interface_can_have() {
        for name in ["", "sixteen-bytes-xx", "a/b", "a b", ".", "..", "a:b"] {
            assert_eq!(check(name).unwrap_err().code(), "EINVAL", "{name:?}");
        }
        assert_eq!(check("enp1s0f0np0"), Ok("enp1s0f0np0"));
    }
}
