//! Opening: filters before anything can arrive, rings, fanout.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bifurcate_linux::packet::{Fanout, Instruction, PacketSocket, ReceiveRing, TransmitRing, Version};
use bifurcate_linux::{Error, Result, interface};

use super::rx::Rx;
use super::tx::Tx;
use crate::device::{Mtu, Port, QueuePair};
use crate::frame::Umem;

/// Which frames are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Filter<'a> {
    /// Those that a classic BPF program accepts. What it returns is the most bytes of the frame that arrive.
    Classic(&'a [Instruction]),
    /// Those that a loaded eBPF socket filter accepts: for what classic BPF cannot see, such as the mark
    /// (`skb->tc_index`) on frames that this program itself passed back into the kernel.
    Program(BorrowedFd<'a>),
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// The interface, in the calling thread's network namespace.
    pub ifname: String,
    /// Number of queues: members of the fanout group.
    pub queues: u32,
    /// Which frames are wanted.
    pub filter: Filter<'a>,
    /// How frames are spread over the queues.
    pub fanout: Fanout,
    /// The receive ring of each queue.
    pub receive: ReceiveRing,
    /// The transmit ring of each queue. A frame and a header of at most 48 bytes must fit a slot.
    pub transmit: TransmitRing,
    /// Send past the queueing discipline.
    pub bypass_qdisc: bool,
    /// Give each frame its arrival time and flow hash.
    pub metadata: bool,
}

impl<'a> Config<'a> {
    /// One queue of an interface with what suits most: 4 MiB in 32 blocks to receive into, handed over after
    /// a millisecond at the latest; 1,024 slots of 2 KiB to send from.
    #[must_use]
    pub fn new(ifname: &str, filter: Filter<'a>) -> Config<'a> {
        Config {
            ifname: ifname.to_owned(),
            queues: 1,
            filter,
            fanout: Fanout::Hash,
            receive: ReceiveRing {
                block_size: 128 << 10,
                blocks: 32,
                retire_ms: 1,
                hash: true,
            },
            transmit: TransmitRing {
                slot_size: 2048,
                slots: 1024,
            },
            bypass_qdisc: true,
            metadata: true,
        }
    }
}

/// The instructions in the bytes of a filter program: eight bytes each, in this machine's order. `None` when
/// the length is no multiple of that.
#[must_use]
pub fn instructions(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (whole, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| {
        whole
            .iter()
            .map(|&[a, b, jt, jf, k0, k1, k2, k3]| Instruction {
                code: u16::from_ne_bytes([a, b]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect()
    })
}

/// Largest MTU that a slot is made for; the loopback interface has one of 65,536.
const MTU_MAX: u32 = 65_535;
/// Bytes around a packet in a slot: the ring's header of at most 48, an Ethernet header, a VLAN tag.
const AROUND: u32 = 48 + 14 + 4;

/// Opens an interface over `umem`, into which received frames are copied.
///
/// With jumbo frames in the pool, a slot of the transmit ring is made large enough for the interface's MTU.
///
/// # Errors
/// `EINVAL` for a configuration that cannot be, or a filter that the kernel refuses; `ENODEV`; `EPERM`
/// without CAP_NET_RAW; `ENOMEM`.
pub fn open(config: &Config<'_>, umem: &Arc<Umem>) -> Result<Port> {
    let mut config = config.clone();
    let ifindex = interface::index(&config.ifname)?;
    let mtu = Mtu::new(interface::mtu(ifindex)?);
    if umem.jumbo_frames() > 0 {
        let needed = (mtu.get().min(MTU_MAX) + AROUND).next_power_of_two();
        config.transmit.slot_size = config.transmit.slot_size.max(needed);
    }
    config.receive.hash &= config.metadata;
    let (receive, transmit) = (config.receive, config.transmit);
    let powers = receive.block_size.is_power_of_two()
        && transmit.slot_size.is_power_of_two()
        && transmit.slots.is_power_of_two();
    if config.queues == 0
        || !powers
        || receive.block_size < 4096
        || receive.blocks == 0
        || transmit.slot_size < 128
    {
        let args = format!(
            "dev={} queues={} {receive:?} {transmit:?}",
            config.ifname, config.queues
        );
        return Err(Error::new("open(AF_PACKET)", args, 22));
    }
    let mut group = None;
    let mut queues = Vec::with_capacity(config.queues as usize);
    for index in 0..config.queues {
        let rx = receiver(&config, ifindex, &mtu, &mut group).map_err(|error| explain(&config, error))?;
        let tx = sender(&config, ifindex, &mtu).map_err(|error| explain(&config, error))?;
        queues.push(QueuePair {
            index,
            rx: Box::new(rx),
            tx: Box::new(tx),
        });
    }
    Ok(Port {
        name: config.ifname.clone(),
        queues,
        umem: Arc::clone(umem),
    })
}

fn receiver(config: &Config<'_>, ifindex: u32, mtu: &Mtu, group: &mut Option<u16>) -> Result<Rx> {
    let socket = PacketSocket::open()?;
    // Nothing may arrive before the filter stands, nor anything twice before the group has its members.
    socket.attach_nothing()?;
    socket.version(Version::V3)?;
    socket.ignore_outgoing()?;
    let ring = socket.receive_ring(&config.receive)?;
    socket.bind(ifindex, true)?;
    match *group {
        None if config.queues > 1 => *group = Some(socket.found_group(config.fanout)?),
        None => {}
        Some(group) => socket.join_group(group, config.fanout)?,
    }
    match config.filter {
        Filter::Classic(program) => socket.attach_classic(program)?,
        Filter::Program(program) => socket.attach_ebpf(program)?,
    }
    Ok(Rx::new(
        socket,
        ring,
        config.receive,
        ifindex,
        mtu,
        config.metadata,
    ))
}

fn sender(config: &Config<'_>, ifindex: u32, mtu: &Mtu) -> Result<Tx> {
    let with = |version: Version| {
        let socket = PacketSocket::open()?;
        socket.version(version)?;
        socket.skip_refused()?;
        if config.bypass_qdisc {
            socket.bypass_qdisc()?;
        }
        socket.send_buffer(4 << 20);
        let ring = socket.transmit_ring(&config.transmit)?;
        socket.bind(ifindex, false)?;
        Ok(Tx::new(socket, ring, version, config.transmit, mtu))
    };
    // Kernels before 4.11 have no transmit ring of version 3.
    with(Version::V3).or_else(|error: Error| {
        if error.code() == "EINVAL" {
            with(Version::V2)
        } else {
            Err(error)
        }
    })
}

fn explain(config: &Config<'_>, error: Error) -> Error {
    Error {
        args: format!("dev={} {}", config.ifname, error.args),
        ..error
    }
}
