//! What the kernel tells of a namespace, as plain JavaScript objects (their meaning: control/src/kernel.ts).
#![allow(
    missing_docs,
    reason = "the fields are those of control/src/kernel.ts, which says what they mean"
)]

use bifurcate_linux::netlink::{address, lease, link, netdev, route};
use bifurcate_linux::{ethtool, sockets};
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use std::fmt::Write;
use std::net::IpAddr;

/// The XDP program of an interface.
#[napi(object, object_from_js = false)]
pub struct LinkXdp {
    #[napi(ts_type = "\"driver\" | \"generic\" | \"hardware\"")]
    pub mode: &'static str,
    pub program_id: u32,
}

/// One network interface.
#[napi(object, use_nullable = true, object_from_js = false)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: String,
    pub mtu: u32,
    pub up: bool,
    pub carrier: bool,
    pub ethernet: bool,
    pub loopback: bool,
    pub kind: Option<String>,
    pub master: Option<u32>,
    pub link: Option<u32>,
    pub vlan_id: Option<u32>,
    pub rx_queues: u32,
    pub tx_queues: u32,
    pub xdp: Option<LinkXdp>,
}

impl From<link::Link> for Link {
    fn from(link: link::Link) -> Self {
        /// ARPHRD_ETHER; the loopback has a type of its own.
        const ETHERNET: u16 = 1;
        let xdp = link.xdp.map(|(mode, program_id)| LinkXdp {
            mode: match mode {
                link::XdpAttached::Driver => "driver",
                link::XdpAttached::Generic => "generic",
                link::XdpAttached::Hardware => "hardware",
            },
            program_id,
        });
        Self {
            index: link.index,
            name: link.name,
            mac: hex(&link.mac, ":"),
            mtu: link.mtu,
            up: link.up,
            carrier: link.carrier,
            ethernet: link.hardware == ETHERNET,
            loopback: link.loopback,
            kind: link.kind,
            master: link.master,
            // A number of another namespace would be taken for an interface of this one.
            link: link.link.filter(|_| !link.link_elsewhere),
            vlan_id: link.vlan_id.map(u32::from),
            rx_queues: link.rx_queues,
            tx_queues: link.tx_queues,
            xdp,
        }
    }
}

/// An address of an interface.
#[napi(object, object_from_js = false)]
pub struct Address {
    pub ifindex: u32,
    #[napi(ts_type = "4 | 6")]
    pub family: u32,
    pub address: String,
    pub prefix: u32,
}

impl From<address::Address> for Address {
    fn from(address: address::Address) -> Self {
        Self {
            ifindex: address.ifindex,
            family: family(address.address),
            address: address.address.to_string(),
            prefix: u32::from(address.prefix),
        }
    }
}

/// A unicast route.
#[napi(object, use_nullable = true, object_from_js = false)]
pub struct Route {
    pub ifindex: u32,
    #[napi(ts_type = "4 | 6")]
    pub family: u32,
    pub destination: String,
    pub gateway: Option<String>,
}

impl From<route::Route> for Route {
    fn from(route: route::Route) -> Self {
        let destination = if route.prefix == 0 {
            "default".to_owned()
        } else {
            format!("{}/{}", route.destination, route.prefix)
        };
        Self {
            ifindex: route.ifindex,
            family: family(route.destination),
            destination,
            gateway: route.gateway.map(|gateway| gateway.to_string()),
        }
    }
}

/// A TCP or UDP socket.
#[napi(object, object_from_js = false)]
pub struct SocketFacts {
    #[napi(ts_type = "\"tcp\" | \"udp\"")]
    pub protocol: &'static str,
    #[napi(ts_type = "4 | 6")]
    pub family: u32,
    pub local_address: String,
    pub local_port: u32,
    pub remote_address: String,
    pub remote_port: u32,
    #[napi(ts_type = "\"listen\" | \"established\" | \"other\"")]
    pub state: &'static str,
    pub inode: u32,
}

impl From<sockets::Facts> for SocketFacts {
    fn from(facts: sockets::Facts) -> Self {
        Self {
            protocol: match facts.transport {
                sockets::Transport::Tcp => "tcp",
                sockets::Transport::Udp => "udp",
            },
            family: family(facts.local.0),
            local_address: facts.local.0.to_string(),
            local_port: u32::from(facts.local.1),
            remote_address: facts.remote.0.to_string(),
            remote_port: u32::from(facts.remote.1),
            state: match facts.state {
                sockets::State::Listen => "listen",
                sockets::State::Established => "established",
                sockets::State::Other => "other",
            },
            inode: facts.inode,
        }
    }
}

/// What stands at tc ingress of an interface.
#[napi(object)]
pub struct TcIngress {
    /// The kernel has tcx (6.6).
    pub tcx: bool,
    /// The interface has the clsact qdisc.
    pub clsact: bool,
    /// The names of its BPF filters there.
    pub filters: Vec<String>,
}

/// `ethtool -i`.
#[napi(object)]
pub struct DriverInfo {
    pub driver: String,
    pub version: String,
    pub firmware: String,
    pub bus: String,
}

impl From<ethtool::DriverInfo> for DriverInfo {
    fn from(info: ethtool::DriverInfo) -> Self {
        Self {
            driver: info.driver,
            version: info.version,
            firmware: info.firmware,
            bus: info.bus,
        }
    }
}

/// Numbers of queues.
#[napi(object)]
pub struct Channels {
    pub rx: u32,
    pub tx: u32,
    pub combined: u32,
    pub other: u32,
}

impl From<ethtool::Channels> for Channels {
    fn from(channels: ethtool::Channels) -> Self {
        Self {
            rx: channels.rx,
            tx: channels.tx,
            combined: channels.combined,
            other: channels.other,
        }
    }
}

impl From<Channels> for ethtool::Channels {
    fn from(channels: Channels) -> Self {
        Self {
            rx: channels.rx,
            tx: channels.tx,
            combined: channels.combined,
            other: channels.other,
        }
    }
}

/// The queues a card can have, and has.
#[napi(object)]
pub struct ChannelsFacts {
    pub max: Channels,
    pub now: Channels,
}

/// `ethtool -g`.
#[napi(object)]
pub struct Rings {
    pub rx: u32,
    pub tx: u32,
    pub rx_max: u32,
    pub tx_max: u32,
}

impl From<ethtool::Rings> for Rings {
    fn from(rings: ethtool::Rings) -> Self {
        Self {
            rx: rings.rx,
            tx: rings.tx,
            rx_max: rings.rx_max,
            tx_max: rings.tx_max,
        }
    }
}

/// `ethtool -x`.
#[napi(object)]
pub struct Rss {
    pub indirection: Vec<u32>,
    pub key: String,
    pub hash_function: u32,
    pub input_transform: u32,
}

impl From<ethtool::Rss> for Rss {
    fn from(rss: ethtool::Rss) -> Self {
        Self {
            indirection: rss.indirection,
            key: hex(&rss.key, ""),
            hash_function: u32::from(rss.hash_function),
            input_transform: u32::from(rss.input_transform),
        }
    }
}

/// `ethtool -k`, one feature.
#[napi(object)]
pub struct Feature {
    pub active: bool,
    pub requested: bool,
    pub available: bool,
    pub fixed: bool,
}

impl From<ethtool::Feature> for Feature {
    fn from(feature: ethtool::Feature) -> Self {
        Self {
            active: feature.active,
            requested: feature.requested,
            available: feature.available,
            fixed: feature.fixed,
        }
    }
}

/// What XDP an interface can.
#[napi(object, object_from_js = false)]
pub struct XdpFeatures {
    pub features: Vec<&'static str>,
    pub zero_copy_max_segments: u32,
    pub rx_metadata: Vec<&'static str>,
}

impl From<netdev::XdpFeatures> for XdpFeatures {
    fn from(features: netdev::XdpFeatures) -> Self {
        Self {
            features: features.features,
            zero_copy_max_segments: features.zero_copy_max_segments,
            rx_metadata: features.rx_metadata,
        }
    }
}

/// A receive queue of a card that is lent to a virtual interface.
#[napi(object)]
pub struct QueueLease {
    pub queue: u32,
    /// The virtual interface's number, in its own namespace.
    pub ifindex: u32,
    /// The virtual interface's queue.
    pub leased_as: u32,
    /// The virtual interface is in another namespace.
    pub elsewhere: bool,
}

impl From<lease::Lease> for QueueLease {
    fn from(lease: lease::Lease) -> Self {
        Self {
            queue: lease.queue,
            ifindex: lease.ifindex,
            leased_as: lease.leased_as,
            elsewhere: lease.elsewhere,
        }
    }
}

/// A struct ethtool_rx_flow_spec and where it is.
#[napi(object)]
pub struct NtupleRule {
    pub location: u32,
    pub bytes: Uint8Array,
}

fn family(address: IpAddr) -> u32 {
    if address.is_ipv4() { 4 } else { 6 }
}

fn hex(bytes: &[u8], separator: &str) -> String {
    bytes
        .iter()
        .enumerate()
        .fold(String::new(), |mut text, (at, byte)| {
            let _ = write!(text, "{}{byte:02x}", if at == 0 { "" } else { separator });
            text
        })
}
