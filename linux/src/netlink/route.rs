//! Routes of a namespace (rtnetlink(7), RTM_GETROUTE).

use super::message::{Attribute, Message, Received, address, attributes, u16_at, u32_at};
use super::socket::{Protocol, Socket};
use crate::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A unicast route; one of several next hops has a route of its own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface it leaves by.
    pub ifindex: u32,
    /// The network it leads to.
    pub destination: IpAddr,
    /// Length of the network's prefix in bits; zero is the default route.
    pub prefix: u8,
    /// The router it goes through, none when the network is on the link.
    pub gateway: Option<IpAddr>,
}

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
/// struct rtmsg.
const RTMSG: usize = 12;
/// struct rtnexthop: length, flags, hops, ifindex.
const RTNEXTHOP: usize = 8;

/// Every unicast route of the calling thread's namespace, of IPv4 and IPv6 and of all tables.
pub fn routes() -> Result<Vec<Route>> {
    let request = Message::new(RTM_GETROUTE, 0, &[0; RTMSG]);
    let found = Socket::open(Protocol::Route)?
        .dump("netlink(RTM_GETROUTE)", &request, |received| Some(read(received)))?;
    Ok(found.into_iter().flatten().collect())
}

pub(super) fn read(received: &Received<'_>) -> Vec<Route> {
    fields(received).unwrap_or_default()
}

fn fields(received: &Received<'_>) -> Option<Vec<Route>> {
    let body = received.body;
    let (family, prefix, kind) = (i32::from(*body.first()?), *body.get(1)?, *body.get(7)?);
    if received.kind != RTM_NEWROUTE || kind != RTN_UNICAST || u32_at(body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let any = match family {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let all: Vec<_> = attributes(body.get(RTMSG..)?).collect();
    let find = |kind| all.iter().find(|a| a.kind == kind);
    let destination = find(RTA_DST).and_then(Attribute::address).unwrap_or(any);
    let route = |ifindex, gateway| Route {
        ifindex,
        destination,
        prefix,
        gateway,
    };
    if let Some(hops) = find(RTA_MULTIPATH) {
        return Some(
            next_hops(hops.value)
                .map(|(ifindex, attributes)| route(ifindex, gateway(attributes)))
                .collect(),
        );
    }
    let gateway = gateway(body.get(RTMSG..)?);
    Some(vec![route(find(RTA_OIF)?.u32()?, gateway)])
}

/// RTA_GATEWAY, or RTA_VIA: an address family before the address, for IPv4 through an IPv6 router.
fn gateway(bytes: &[u8]) -> Option<IpAddr> {
    attributes(bytes).find_map(|attribute| match attribute.kind {
        RTA_GATEWAY => attribute.address(),
        RTA_VIA => address(attribute.value.get(2..)?),
        _ => None,
    })
}

fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let hop = (u32_at(bytes, 4)?, bytes.get(RTNEXTHOP..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(hop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    fn routes_of(prefix: u8, kind: u8, fill: impl FnOnce(Message) -> Message) -> Vec<Route> {
        let body = [2, prefix, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        let bytes = fill(Message::new(RTM_NEWROUTE, 0, &body)).finish(1, 0);
        read(&messages(&bytes).next().unwrap())
    }

    #[test]
    fn a_default_route() {
        let found = routes_of(0, RTN_UNICAST, |m| {
            m.attribute(RTA_GATEWAY, &[10, 0, 0, 1]).number(RTA_OIF, 2)
        });
        let gateway = Some("10.0.0.1".parse().unwrap());
        assert_eq!(
            found,
            [Route {
                ifindex: 2,
                destination: "0.0.0.0".parse().unwrap(),
                prefix: 0,
                gateway
            }]
        );
    }

    #[test]
    fn each_next_hop_is_a_route() {
        let hop = |ifindex: u8, router: u8| [16, 0, 0, 0, ifindex, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, router];
        let hops = [hop(2, 1), hop(3, 9)].concat();
        let found = routes_of(8, RTN_UNICAST, |m| {
            m.attribute(RTA_DST, &[10, 0, 0, 0])
                .attribute(RTA_MULTIPATH, &hops)
        });
        let seen: Vec<_> = found
            .iter()
            .map(|r| (r.ifindex, r.gateway.unwrap().to_string()))
            .collect();
        assert_eq!(seen, [(2, "10.0.0.1".to_owned()), (3, "10.0.0.9".to_owned())]);
    }

    #[test]
    fn local_and_broadcast_routes_are_left_out() {
        assert!(routes_of(32, 2, |m| m.number(RTA_OIF, 1)).is_empty());
        assert!(routes_of(32, 3, |m| m.number(RTA_OIF, 1)).is_empty());
    }
}
