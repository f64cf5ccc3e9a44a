//! netkit devices without a peer (drivers/net/netkit.c, Linux 7.1): virtual, each queue but the first a leased one.

use super::lease::{self, Source};
use super::link::{
    self, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, IFLA_NUM_RX_QUEUES,
    RTM_NEWLINK, check, request,
};
use super::message::{Message, flag};
use super::socket::{Protocol, Socket};
use crate::Result;

/// IFLA_NETKIT_MODE and IFLA_NETKIT_PAIRING, and their values (include/uapi/linux/if_link.h).
const IFLA_NETKIT_MODE: u16 = 5;
const IFLA_NETKIT_PAIRING: u16 = 10;
const NETKIT_L2: u32 = 0;
const NETKIT_DEVICE_SINGLE: u32 = 1;

/// Creates a netkit device without a peer, down, that can lease `leases` receive queues. Of a pair, AF_XDP sockets
/// can be bound to neither end (netkit_xsk()), so pairs are not made here.
///
/// A kernel that has netkit and no queue leases (6.7 to 7.0) does not know the attribute that leaves the peer out
/// and makes a pair: ask [`super::lease::supported`] before.
pub fn create(name: &str, mtu: u32, leases: u32) -> Result<()> {
    let args = format!("netkit {name} pairing=single mtu={mtu} leases={leases}");
    let message = newlink(check(name)?, mtu, leases);
    Socket::open(Protocol::Route)?.change("netlink(RTM_NEWLINK)", &args, message)
}

/// Makes a netkit device with the MTU of card `card`, leases the card's `queues` to its queues 1, 2, ... in that order,
/// and brings it up. Where anything is refused, the device is deleted again.
pub fn create_leasing(name: &str, card: u32, queues: &[u32]) -> Result<()> {
    // bind(AF_XDP) measures its frames against this device's MTU, and the card's frames are what comes.
    let mtu = link::link_by_index(card)?.mtu;
    create(name, mtu, queues.len() as u32)?;
    let device = link::link(name)?.index;
    let lend = |&queue: &u32| {
        let source = Source {
            ifindex: card,
            queue,
            netns_id: None,
        };
        lease::lease(device, source).map(|_| ())
    };
    let up = link::Change {
        up: Some(true),
        ..link::Change::default()
    };
    let made = queues
        .iter()
        .try_for_each(lend)
        .and_then(|()| link::set(device, &up));
    made.inspect_err(|_| {
        // What was refused is the error to tell; the device goes with its namespace at the latest.
        let _ = link::delete(device);
    })
}

fn newlink(name: &str, mtu: u32, leases: u32) -> Message {
    request(RTM_NEWLINK, flag::CREATE | flag::EXCL, 0)
        .string(IFLA_IFNAME, name)
        .number(IFLA_MTU, mtu)
        // Queue 0 is the device's own (NETKIT_NUM_RX_QUEUES_REAL).
        .number(IFLA_NUM_RX_QUEUES, leases.saturating_add(1))
        .nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "netkit")
                .nested(IFLA_INFO_DATA, |data| {
                    data.number(IFLA_NETKIT_MODE, NETKIT_L2)
                        .number(IFLA_NETKIT_PAIRING, NETKIT_DEVICE_SINGLE)
                })
        })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::netlink::message::flag::ACK;

    #[test]
    fn a_device_is_asked_for_as_the_header_lays_it_out() {
        #[rustfmt::skip]
        let expected = [
            92, 0, 0, 0, 16, 0, 0x05, 0x06, 9, 0, 0, 0, 0, 0, 0, 0, // REQUEST|ACK, EXCL|CREATE
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,         // struct ifinfomsg
            8, 0, 3, 0, b'l', b's', b'0', 0,                        // IFLA_IFNAME
            8, 0, 4, 0, 0xdc, 0x05, 0, 0,                           // IFLA_MTU
            8, 0, 32, 0, 3, 0, 0, 0,                                // IFLA_NUM_RX_QUEUES: its own and two
            36, 0, 18, 0x80,                                       // IFLA_LINKINFO
            11, 0, 1, 0, b'n', b'e', b't', b'k', b'i', b't', 0, 0,  // IFLA_INFO_KIND
            20, 0, 2, 0x80,                                        // IFLA_INFO_DATA
            8, 0, 5, 0, 0, 0, 0, 0,                                 // IFLA_NETKIT_MODE: NETKIT_L2
            8, 0, 10, 0, 1, 0, 0, 0,                                // IFLA_NETKIT_PAIRING: NETKIT_DEVICE_SINGLE
        ];
        let written = newlink("ls0", 1500, 2).finish(9, ACK);
        assert_eq!(written, expected);
    }

    #[test]
    fn a_name_that_no_device_can_have_is_refused_here() {
        assert_eq!(create("a/b", 1500, 1).unwrap_err().errno, libc::EINVAL);
    }
}
