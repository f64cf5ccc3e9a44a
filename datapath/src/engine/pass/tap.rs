//! Passing through a TAP: written there, marked and redirected at its tc ingress, received by the card.

use std::os::fd::AsFd;
use std::sync::Arc;

use bifurcate_linux::bpf::{Program, ProgramSource, ProgramType, TcDirection};
use bifurcate_linux::netlink::{ipv6, link, tc};
use bifurcate_linux::netns::Netns;
use bifurcate_linux::tap::{NO_ROOM, Tap, TapQueue, VnetHeader};
use bifurcate_linux::{Error, Result, interface};

use crate::device::Mtu;
use crate::engine::PassPath;
use crate::frame::checksum;
use crate::frame::segment::{Oversize, oversize};

/// What `skb->tc_index` holds in a frame that was passed, while the kernel receives it. A tc program or an eBPF
/// socket filter on the card reads it to tell a passed frame from one that the wire brought.
pub const PASSED_TC_INDEX: u16 = 0xb1f0;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// MTU of the TAP: the most that the tun driver takes, 65,535 less an Ethernet header.
const MTU: u32 = 65_521;

/// What became of the frames of one [`TapPass`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassCounters {
    /// Frames that the kernel took.
    pub passed: u64,
    /// Frames among them whose checksum had been left to the card.
    pub checksum_pending: u64,
    /// Frames among them that stood for several TCP packets.
    pub segmented: u64,
    /// Frames that the kernel had no room for.
    pub no_room: u64,
    /// Frames that were refused for another reason: too long, too short, the TAP gone or down.
    pub refused: u64,
}

/// The TAP behind the ways of one card. It is not what keeps the TAP alive: the ways are, and when the last of
/// them is dropped, or the process ends, the TAP vanishes with its filter and its program.
#[derive(Clone, Debug)]
pub struct TapDevice {
    /// Its name, `bfpassN`.
    pub name: String,
    /// Its index in the card's namespace.
    pub ifindex: u32,
    /// The card's index there.
    pub card: u32,
    /// The card's MTU: longer TCP frames are passed as what stands for several.
    mtu: Mtu,
}

impl TapDevice {
    /// Makes a TAP with `queues` queues beside the card with index `card` in `netns`, with the card's MAC
    /// address, up, and lets what arrives on it arrive on the card.
    ///
    /// # Errors
    /// `ENODEV`: no such card. `EPERM`: no CAP_NET_ADMIN or CAP_BPF. `ENOENT`, `EOPNOTSUPP`: a kernel without
    /// TUN, clsact, cls_bpf or act_mirred.
    pub fn open(netns: &Netns, card: u32, queues: u32) -> Result<(TapDevice, Vec<TapPass>)> {
        netns.within(|| {
            let mac = link::mac(card)?;
            let mtu = Mtu::new(interface::mtu(card)?);
            let marker = Program::load(&ProgramSource {
                kind: ProgramType::SchedCls,
                name: "bifurcate_pass",
                instructions: &marker(),
                maps: &[],
                fragments: false,
            })?;
            let tap = Tap::open("bfpass%d", queues)?;
            ipv6::no_own_address(tap.ifindex)?;
            let classifier = tc::Classifier::Program {
                program: marker.as_fd(),
                name: "bifurcate-pass",
            };
            let action = tc::Action::RedirectIngress(card);
            // Before it goes up: nothing may reach the TAP's own stack.
            let filter = tc::Filter::add(tap.ifindex, TcDirection::Ingress, &classifier, action)?;
            let up = link::Change {
                up: Some(true),
                mtu: Some(MTU),
                mac: Some(mac),
                ..link::Change::default()
            };
            link::set(tap.ifindex, &up)?;
            let filter = Arc::new(filter);
            let ways = tap
                .queues
                .into_iter()
                .map(|queue| TapPass::new(&filter, &mtu, queue))
                .collect();
            let device = TapDevice {
                name: tap.name,
                ifindex: tap.ifindex,
                card,
                mtu,
            };
            Ok((device, ways))
        })
    }

    /// Gives the TAP the MAC address that the card has now, and the ways its MTU. Until then, frames to the card's
    /// new address are taken for foreign ones. Nothing is changed, and no link event caused, when the TAP has the
    /// address already.
    ///
    /// # Errors
    /// `ENODEV`: the card or the TAP is gone.
    pub fn follow(&self, netns: &Netns) -> Result<()> {
        netns.within(|| {
            self.mtu.set(interface::mtu(self.card)?);
            let mac = link::mac(self.card)?;
            if mac == link::mac(self.ifindex)? {
                return Ok(());
            }
            let change = link::Change {
                mac: Some(mac),
                ..link::Change::default()
            };
            link::set(self.ifindex, &change)
        })
    }
}

/// One queue's way back, for one thread.
#[derive(Debug)]
pub struct TapPass {
    counters: PassCounters,
    queue: TapQueue,
    mtu: Mtu,
    /// Every way holds it, so that no frame can enter the TAP when it is gone. `None`: the TAP is another process's.
    _filter: Option<Arc<tc::Filter>>,
}

impl TapPass {
    fn new(filter: &Arc<tc::Filter>, mtu: &Mtu, queue: TapQueue) -> TapPass {
        TapPass {
            counters: PassCounters::default(),
            queue,
            mtu: mtu.clone(),
            _filter: Some(Arc::clone(filter)),
        }
    }

    /// A way through a TAP that another process made, filters and takes away: a broker's return port. `mtu`: the
    /// card's, in bytes.
    #[must_use]
    pub fn received(queue: TapQueue, mtu: u32) -> TapPass {
        TapPass {
            counters: PassCounters::default(),
            queue,
            mtu: Mtu::new(mtu),
            _filter: None,
        }
    }

    /// What became of the frames so far.
    #[must_use]
    pub fn counters(&self) -> PassCounters {
        self.counters
    }
}

impl PassPath for TapPass {
    /// One system call, one copy (the kernel's own), no wait, no allocation.
    fn pass(&mut self, frame: &[u8]) -> Result<()> {
        let pending = checksum::pending(frame);
        let header = pending.map_or(VnetHeader::COMPLETE, |at| {
            VnetHeader::needs_checksum(at.start, at.offset)
        });
        let mtu = self.mtu.get() as usize;
        let long = if frame.len() > mtu + ETHERNET_HEADER {
            oversize(frame, mtu)
        } else {
            None
        };
        let header = long.map_or(header, |long| standing_for_several(header, &long));
        match self.queue.inject(header, frame) {
            Ok(()) => {
                self.counters.passed += 1;
                self.counters.checksum_pending += u64::from(pending.is_some());
                self.counters.segmented += u64::from(long.is_some());
                Ok(())
            }
            Err(errno) => {
                if NO_ROOM.contains(&errno) {
                    self.counters.no_room += 1;
                } else {
                    self.counters.refused += 1;
                }
                // Without words: an error of a frame allocates nothing.
                Err(Error::new("writev(TAP)", String::new(), errno))
            }
        }
    }
}

/// `header` for a TCP frame that is longer than any packet of the card.
fn standing_for_several(header: VnetHeader, long: &Oversize) -> VnetHeader {
    // A frame that a TAP takes has at most 65,535 bytes, and its parts are no longer.
    let short = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX);
    header.with_tcp_segments(long.is_v4(), short(long.headers()), short(long.size()))
}

/// The classifier at the TAP's tc ingress, as bpf(2) takes it: marks the frame, and matches every one.
fn marker() -> Vec<u8> {
    // linux/bpf.h: `tc_index` in struct __sk_buff. linux/bpf_common.h: the operation codes.
    const TC_INDEX: i16 = 44;
    const MOV_IMM: u8 = 0xb7;
    const MOV32_IMM: u8 = 0xb4;
    const STORE_WORD: u8 = 0x63;
    const EXIT: u8 = 0x95;
    let instruction = |code: u8, registers: u8, offset: i16, immediate: i32| {
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
        bytes
    };
    [
        instruction(MOV_IMM, 2, 0, i32::from(PASSED_TC_INDEX)),
        // Destination r1 (the frame) in the low half, source r2 in the high one.
        instruction(STORE_WORD, 0x21, TC_INDEX, 0),
        instruction(MOV32_IMM, 0, 0, -1),
        instruction(EXIT, 0, 0, 0),
    ]
    .concat()
}
