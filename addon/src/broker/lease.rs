//! What a broker makes for a lease: the pair of a port, bound sockets over a pool, the TAP of a return port.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bifurcate_datapath::device::af_xdp;
use bifurcate_datapath::frame::UmemConfig;
use bifurcate_linux::netlink::ipv6;
use bifurcate_linux::netlink::link::{self, VethEnd};
use bifurcate_linux::tap::Tap;
use napi::Env;
use napi_derive::napi;

use super::seqpacket::Descriptor;
use crate::error::OrThrow;
use crate::kernel::Netns;
use crate::port::open::{self, AfXdpOptions, Obtained};

/// Sockets and pool of a lease, to be passed.
#[napi(object, object_from_js = false)]
pub struct LeaseSockets {
    /// One bound AF_XDP socket a queue.
    pub sockets: Vec<Descriptor>,
    /// The pool's memory file.
    pub memory: Descriptor,
    /// Chunks in each fill ring.
    pub filled: u32,
    /// What the kernel gave.
    pub obtained: Obtained,
}

/// A TAP whose queues are to be passed.
#[napi(object, object_from_js = false)]
pub struct LeaseTap {
    /// Its number.
    pub ifindex: u32,
    /// Its queues.
    pub queues: Vec<Descriptor>,
}

/// What to change of an interface; what is left out stays.
#[napi(object)]
pub struct LinkChange {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Ethernet address, six bytes.
    pub mac: Option<Vec<u8>>,
}

#[napi]
impl Netns {
    /// Makes a veth pair whose ends make themselves no IPv6 address; both are down.
    #[napi]
    pub fn create_veth(&self, env: Env, name: String, peer: String, queues: u32) -> napi::Result<Vec<u32>> {
        self.within(&env, || {
            let end = |name| VethEnd {
                name,
                netns: None,
                rx_queues: queues,
                tx_queues: queues,
            };
            link::create_veth(end(&name), end(&peer))?;
            [&name, &peer]
                .into_iter()
                .map(|each| {
                    let index = link::link(each)?.index;
                    ipv6::no_own_address(index).map(|()| index)
                })
                .collect()
        })
    }

    /// Changes an interface.
    #[napi]
    pub fn set_link(&self, env: Env, ifindex: u32, change: LinkChange) -> napi::Result<()> {
        let mac = change.mac.and_then(|mac| link::Mac::try_from(mac).ok());
        let change = link::Change {
            up: change.up,
            mtu: change.mtu,
            mac,
            ..link::Change::default()
        };
        self.within(&env, || link::set(ifindex, &change))
    }

    /// Moves an interface to another namespace, which takes it down. Asks for CAP_NET_ADMIN over both.
    #[napi]
    pub fn move_link(&self, env: Env, ifindex: u32, to: &Netns) -> napi::Result<()> {
        let to = to.netns(&env)?;
        let change = link::Change {
            netns: Some(&to),
            ..link::Change::default()
        };
        self.within(&env, || link::set(ifindex, &change))
    }

    /// Makes a pool and AF_XDP sockets over it, bound to the queues, to be passed. Without `transmit` they can never send.
    #[napi]
    pub fn create_lease_sockets(
        &self,
        env: Env,
        options: AfXdpOptions,
        transmit: bool,
    ) -> napi::Result<LeaseSockets> {
        let config = open::config(&options).or_throw(&env)?;
        let pool = UmemConfig {
            frames: options.frames,
            frame_size: options.frame_size,
            jumbo_frames: options.jumbo_frames,
            pages: open::pages(&options.pages).or_throw(&env)?,
        };
        let granted = self.within(&env, || af_xdp::grant(&config, &pool, transmit))?;
        let kind = bifurcate_linux::memory::MemoryFile::received(duplicate(&granted.memory).or_throw(&env)?)
            .or_throw(&env)?
            .pages();
        Ok(LeaseSockets {
            sockets: granted.sockets.into_iter().map(Descriptor::from).collect(),
            memory: granted.memory.into(),
            filled: granted.filled,
            obtained: open::obtained(&granted.obtained, kind),
        })
    }

    /// Whether an AF_XDP socket is bound to that queue now: tried, by binding one. Who has it is not waited for; null when
    /// nobody has it any more, and the kernel has not let go of it within `patience_ms`.
    #[napi(ts_return_type = "boolean | null")]
    pub fn is_queue_held(
        &self,
        env: Env,
        ifname: String,
        queue: u32,
        patience_ms: u32,
    ) -> napi::Result<Option<bool>> {
        let patience = Duration::from_millis(patience_ms.into());
        self.within(&env, || af_xdp::is_held(&ifname, queue, patience))
    }

    /// Makes a TAP, down, whose ends are to be passed: what is written there arrives on it.
    #[napi]
    pub fn create_tap(&self, env: Env, name: String, queues: u32) -> napi::Result<LeaseTap> {
        self.within(&env, || {
            let tap = Tap::open(&name, queues)?;
            ipv6::no_own_address(tap.ifindex)?;
            let queues = tap
                .queues
                .iter()
                .map(|queue| duplicate_of(queue).map(Descriptor::from))
                .collect::<bifurcate_linux::Result<Vec<_>>>()?;
            Ok(LeaseTap {
                ifindex: tap.ifindex,
                queues,
            })
        })
    }
}

fn duplicate(fd: &OwnedFd) -> bifurcate_linux::Result<OwnedFd> {
    duplicate_of(fd)
}

fn duplicate_of(fd: &impl AsFd) -> bifurcate_linux::Result<OwnedFd> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| bifurcate_linux::Error::io("fcntl", "F_DUPFD_CLOEXEC", &error))
}
