//! What an interface counted (IFLA_STATS64), and how it receives: promiscuous or not, how often its carrier changed.

use super::message::{Attribute, Message, Received, attributes, u32_at};
use super::socket::{Protocol, Socket};
use crate::{Error, Result};

/// The counters of an interface since it was made (struct rtnl_link_stats64, include/uapi/linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Packets dropped by the driver or the stack.
    pub rx_dropped: u64,
    /// Packets that the card had no room for.
    pub rx_missed: u64,
    /// Packets that nobody wanted.
    pub rx_nohandler: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets dropped on the way out.
    pub tx_dropped: u64,
    /// IFLA_PROMISCUITY: how many have asked for every packet; 0: the card takes its own addresses only.
    pub promiscuity: u32,
    /// IFLA_CARRIER_CHANGES.
    pub carrier_changes: u32,
}

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFINFOMSG: usize = 16;
const IFLA_STATS64: u16 = 23;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_CARRIER_CHANGES: u16 = 35;
const CALL: &str = "netlink(RTM_GETLINK)";

/// Reads the counters of interface `ifindex` of the calling thread's namespace; ENODEV when there is none.
pub fn counters(ifindex: u32) -> Result<Counters> {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let args = format!("ifindex={ifindex} counters");
    let mut found = None;
    let request = Message::new(RTM_GETLINK, 0, &body);
    Socket::open(Protocol::Route)?.get(CALL, &args, request, &mut |received| found = read(received))?;
    found.ok_or_else(|| Error::new(CALL, args, libc::ENODEV))
}

fn read(received: &Received<'_>) -> Option<Counters> {
    if received.kind != RTM_NEWLINK {
        return None;
    }
    u32_at(received.body, 12)?;
    let mut counters = Counters::default();
    for attribute in attributes(received.body.get(IFINFOMSG..)?) {
        match attribute.kind {
            IFLA_STATS64 => read_stats(&attribute, &mut counters),
            IFLA_PROMISCUITY => counters.promiscuity = attribute.u32().unwrap_or(0),
            IFLA_CARRIER_CHANGES => counters.carrier_changes = attribute.u32().unwrap_or(0),
            _ => {}
        }
    }
    Some(counters)
}

/// The struct grows at its end from kernel to kernel: what is not there counts as nothing.
fn read_stats(attribute: &Attribute<'_>, to: &mut Counters) {
    let at = |number: usize| {
        let bytes = attribute.value.get(number * 8..number * 8 + 8);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_ne_bytes)
    };
    // rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped, multicast, collisions,
    // five kinds of receive error of which the fifth is rx_missed_errors (15), ..., rx_nohandler (23).
    to.rx_packets = at(0);
    to.tx_packets = at(1);
    to.rx_bytes = at(2);
    to.rx_errors = at(4);
    to.rx_dropped = at(6);
    to.tx_dropped = at(7);
    to.rx_missed = at(15);
    to.rx_nohandler = at(23);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn counters_stand_where_the_header_has_them() {
        let stats: Vec<u8> = (0..24u64).flat_map(u64::to_ne_bytes).collect();
        let bytes = Message::new(RTM_NEWLINK, 0, &[0; IFINFOMSG])
            .attribute(IFLA_STATS64, &stats)
            .number(IFLA_PROMISCUITY, 2)
            .finish(1, 0);
        let read = read(&messages(&bytes).next().unwrap()).unwrap();
        assert_eq!((read.rx_packets, read.rx_bytes, read.rx_dropped), (0, 2, 6));
        assert_eq!((read.rx_missed, read.rx_nohandler, read.promiscuity), (15, 23, 2));
    }

    #[test]
    fn an_older_kernels_shorter_struct_is_read_as_far_as_it_goes() {
        let bytes = Message::new(RTM_NEWLINK, 0, &[0; IFINFOMSG])
            .attribute(IFLA_STATS64, &7u64.to_ne_bytes())
            .finish(1, 0);
        let read = read(&messages(&bytes).next().unwrap()).unwrap();
        assert_eq!((read.rx_packets, read.rx_missed), (7, 0));
    }
}
