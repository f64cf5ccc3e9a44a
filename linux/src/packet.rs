//! AF_PACKET sockets with memory-mapped rings: filters, ring set-up, fanout, statistics.
//!
//! The layouts and option numbers are those of `include/uapi/linux/if_packet.h`.

mod layout;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::call::call;
use crate::memory::Mapping;
use crate::sockopt::{self, Plain};
use crate::{Error, Result};

pub use layout::{
    BLOCK_STATUS_AT, BlockHeader, FrameHeader, PACKET_OUTGOING, PACKET_TYPE_AT, ReceiveRing,
    STATUS_AVAILABLE, STATUS_CHECKSUM_NOT_READY, STATUS_KERNEL, STATUS_LOSING, STATUS_SEND_REQUEST,
    STATUS_SENDING, STATUS_USER, STATUS_VLAN_TPID_VALID, STATUS_VLAN_VALID, STATUS_WRONG_FORMAT, SlotLayout,
    TransmitRing,
};

/// The ring layouts that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TPACKET_V2: slots of one size.
    V2,
    /// TPACKET_V3: receiving into blocks that frames fill one after another; sending as with V2 (since 4.11).
    V3,
}

/// How a fanout group spreads frames over its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fanout {
    /// By the flow's hash: a flow stays on one member.
    Hash,
    /// One member after another, flows are torn apart.
    LoadBalance,
    /// By the processor that the frame arrived on.
    Cpu,
    /// By the card's receive queue.
    Queue,
}

/// One instruction of a classic BPF program (`struct sock_filter`, linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// And when it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// The program that lets nothing through: return 0 (BPF_RET | BPF_K).
const NOTHING: [Instruction; 1] = [Instruction {
    code: 0x06,
    jt: 0,
    jf: 0,
    k: 0,
}];

#[derive(Clone, Copy)]
#[repr(C)]
struct TpacketReq3 {
    block_size: u32,
    block_nr: u32,
    frame_size: u32,
    frame_nr: u32,
    retire_blk_tov: u32,
    sizeof_priv: u32,
    feature_req_word: u32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct TpacketStats3 {
    packets: u32,
    drops: u32,
    freezes: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Program {
    len: u16,
    padding: [u16; 3],
    instructions: u64,
}

// SAFETY: seven u32 without padding.
unsafe impl Plain for TpacketReq3 {}
// SAFETY: three u32 without padding.
unsafe impl Plain for TpacketStats3 {}
// SAFETY: the padding of the C struct is spelt out as a field; the rest are integers.
unsafe impl Plain for Program {}

/// What the kernel counted for a socket since the last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that passed the filter, the dropped ones included.
    pub packets: u64,
    /// Frames dropped because no block was free.
    pub drops: u64,
}

/// An AF_PACKET socket.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Makes one in the calling thread's network namespace. It receives nothing before [`Self::bind`].
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn open() -> Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes three integers and touches no memory of ours.
        let fd = unsafe {
            call(
                libc::SYS_socket,
                [libc::AF_PACKET as usize, kind as usize, 0, 0, 0, 0],
            )
        }
        .map_err(|errno| Error::new("socket(AF_PACKET)", "SOCK_RAW", errno))?;
        // SAFETY: the kernel just gave this descriptor to us; nobody else owns it.
        Ok(PacketSocket(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Lets nothing through from now on. Attach before a bind; the real filter replaces it in one step.
    ///
    /// # Errors
    /// As [`Self::attach_classic`].
    pub fn attach_nothing(&self) -> Result<()> {
        self.attach_classic(&NOTHING)
    }

    /// Lets through what the classic BPF `program` accepts (SO_ATTACH_FILTER), in the place of an earlier one.
    ///
    /// # Errors
    /// `EINVAL` for a program the kernel's checker refuses or one of more than 4,096 instructions.
    pub fn attach_classic(&self, program: &[Instruction]) -> Result<()> {
        let call_name = "setsockopt(SO_ATTACH_FILTER)";
        let args = || format!("{} instructions", program.len());
        let Ok(len) = u16::try_from(program.len()) else {
            return Err(Error::new(call_name, args(), libc::EINVAL));
        };
        let value = Program {
            len,
            padding: [0; 3],
            instructions: program.as_ptr() as u64,
        };
        // The kernel copies the instructions during the call, while `program` is borrowed.
        sockopt::set(
            self.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            &value,
            call_name,
            args,
        )
    }

    /// Lets through what the loaded eBPF socket filter accepts (SO_ATTACH_BPF), in the place of an earlier one.
    ///
    /// # Errors
    /// `EINVAL` for a program of another type.
    pub fn attach_ebpf(&self, program: BorrowedFd<'_>) -> Result<()> {
        let value = program.as_raw_fd();
        let call_name = "setsockopt(SO_ATTACH_BPF)";
        sockopt::set(
            self.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            &value,
            call_name,
            || format!("fd={value}"),
        )
    }

    /// Chooses the ring layout. Before the ring is made.
    ///
    /// # Errors
    /// `EBUSY` when there is a ring already.
    pub fn version(&self, version: Version) -> Result<()> {
        let value = match version {
            Version::V2 => libc::tpacket_versions::TPACKET_V2 as u32,
            Version::V3 => libc::tpacket_versions::TPACKET_V3 as u32,
        };
        self.set("setsockopt(PACKET_VERSION)", libc::PACKET_VERSION, &value, || {
            format!("{version:?}")
        })
    }

    /// Makes the TPACKET_V3 receive ring and maps it.
    ///
    /// # Errors
    /// `EINVAL` for sizes that do not fit, `ENOMEM`.
    pub fn receive_ring(&self, ring: &ReceiveRing) -> Result<Mapping> {
        /// With V3 the frame size is nominal: it only has to divide the block.
        const NOMINAL_FRAME: u32 = 2048;
        /// TP_FT_REQ_FILL_RXHASH.
        const FILL_HASH: u32 = 1;
        let request = TpacketReq3 {
            block_size: ring.block_size,
            block_nr: ring.blocks,
            frame_size: NOMINAL_FRAME,
            frame_nr: ring.block_size / NOMINAL_FRAME * ring.blocks,
            retire_blk_tov: ring.retire_ms.max(1),
            sizeof_priv: 0,
            feature_req_word: if ring.hash { FILL_HASH } else { 0 },
        };
        self.set(
            "setsockopt(PACKET_RX_RING)",
            libc::PACKET_RX_RING,
            &request,
            || format!("{ring:?}"),
        )?;
        Mapping::of(self.as_fd(), 0, ring.len(), "AF_PACKET receive ring")
    }

    /// Makes the transmit ring of either version and maps it.
    ///
    /// # Errors
    /// `EINVAL` for sizes that do not fit, and for V3 on kernels older than 4.11; `ENOMEM`.
    pub fn transmit_ring(&self, ring: &TransmitRing) -> Result<Mapping> {
        let block_size = ring
            .slot_size
            .max(64 << 10)
            .min(ring.slot_size.saturating_mul(ring.slots));
        let block_size = block_size.max(crate::memory::ORDINARY_PAGE as u32);
        let request = TpacketReq3 {
            block_size,
            block_nr: ((ring.len() as u64) / u64::from(block_size)) as u32,
            frame_size: ring.slot_size,
            frame_nr: ring.slots,
            retire_blk_tov: 0,
            sizeof_priv: 0,
            feature_req_word: 0,
        };
        // V2 takes the first four words of the same struct, and a longer one does no harm to it.
        self.set(
            "setsockopt(PACKET_TX_RING)",
            libc::PACKET_TX_RING,
            &request,
            || format!("{ring:?}"),
        )?;
        Mapping::of(self.as_fd(), 0, ring.len(), "AF_PACKET transmit ring")
    }

    /// Binds to an interface of the socket's namespace. With `receive`, frames of every protocol that pass
    /// the filter arrive from now on (ETH_P_ALL); without it the socket only sends.
    ///
    /// # Errors
    /// `ENODEV`; `ENETDOWN` when the interface is down.
    pub fn bind(&self, ifindex: u32, receive: bool) -> Result<()> {
        let protocol = if receive {
            (libc::ETH_P_ALL as u16).to_be()
        } else {
            0
        };
        // SAFETY: all-zero bytes are a valid sockaddr_ll: integers only.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex as i32;
        let fd = self.0.as_raw_fd() as usize;
        let pointer = std::ptr::from_ref(&address) as usize;
        // SAFETY: the kernel reads size_of(sockaddr_ll) bytes at `pointer`, which is alive.
        unsafe {
            call(
                libc::SYS_bind,
                [fd, pointer, size_of::<libc::sockaddr_ll>(), 0, 0, 0],
            )
        }
        .map(drop)
        .map_err(|errno| {
            Error::new(
                "bind(AF_PACKET)",
                format!("ifindex={ifindex} receive={receive}"),
                errno,
            )
        })
    }

    /// Founds a fanout group, which does not receive what this host sends, with this bound socket as its
    /// first member; gives the group's number, which the kernel chooses so that it meets no other group of
    /// the namespace.
    ///
    /// # Errors
    /// `EINVAL` before a bind.
    pub fn found_group(&self, fanout: Fanout) -> Result<u16> {
        /// PACKET_FANOUT_FLAG_UNIQUEID.
        const UNIQUE: u32 = 0x2000;
        self.fanout(0, fanout_number(fanout) | UNIQUE)?;
        let mut value = 0u32;
        let call_name = "getsockopt(PACKET_FANOUT)";
        sockopt::get(
            self.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            &mut value,
            call_name,
            String::new,
        )?;
        Ok((value & 0xffff) as u16)
    }

    /// Joins the fanout group that [`Self::found_group`] gave; same mode, same interface.
    ///
    /// # Errors
    /// `EINVAL` for another mode or interface, `ENOSPC` when the group is full (256, since 5.17 65,536).
    pub fn join_group(&self, group: u16, fanout: Fanout) -> Result<()> {
        self.fanout(group, fanout_number(fanout))
    }

    fn fanout(&self, group: u16, kind: u32) -> Result<()> {
        /// PACKET_FANOUT_FLAG_IGNORE_OUTGOING (linux/if_packet.h, since 6.2; kept and not read before): the
        /// group receives in its members' place, and does not know what they asked for by
        /// PACKET_IGNORE_OUTGOING.
        const IGNORE_OUTGOING: u32 = 0x4000;
        let kind = kind | IGNORE_OUTGOING;
        let value = u32::from(group) | kind << 16;
        self.set("setsockopt(PACKET_FANOUT)", libc::PACKET_FANOUT, &value, || {
            format!("group={group} type_flags={kind:#x}")
        })
    }

    /// Frames that this host sends are not received (PACKET_IGNORE_OUTGOING, since 4.20).
    ///
    /// # Errors
    /// `ENOPROTOOPT` on an older kernel.
    pub fn ignore_outgoing(&self) -> Result<()> {
        /// PACKET_IGNORE_OUTGOING.
        const IGNORE_OUTGOING: i32 = 23;
        self.set(
            "setsockopt(PACKET_IGNORE_OUTGOING)",
            IGNORE_OUTGOING,
            &1u32,
            String::new,
        )
    }

    /// Frames go to the driver directly, past the queueing discipline (PACKET_QDISC_BYPASS).
    ///
    /// # Errors
    /// Whatever setsockopt(2) reports.
    pub fn bypass_qdisc(&self) -> Result<()> {
        self.set(
            "setsockopt(PACKET_QDISC_BYPASS)",
            libc::PACKET_QDISC_BYPASS,
            &1u32,
            String::new,
        )
    }

    /// Lets `bytes` of frames be on their way (SO_SNDBUFFORCE, else SO_SNDBUF as far as it goes).
    pub fn send_buffer(&self, bytes: u32) {
        for name in [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF] {
            if sockopt::set(
                self.as_fd(),
                libc::SOL_SOCKET,
                name,
                &bytes,
                "setsockopt",
                String::new,
            )
            .is_ok()
            {
                return;
            }
        }
    }

    /// A transmit slot that the kernel refuses is skipped instead of stopping the ring (PACKET_LOSS).
    ///
    /// # Errors
    /// `EBUSY` after the ring was made.
    pub fn skip_refused(&self) -> Result<()> {
        self.set("setsockopt(PACKET_LOSS)", libc::PACKET_LOSS, &1u32, String::new)
    }

    /// What the kernel counted since the last call.
    ///
    /// # Errors
    /// Whatever getsockopt(2) reports.
    pub fn take_statistics(&self) -> Result<Statistics> {
        let mut value = TpacketStats3::default();
        let call_name = "getsockopt(PACKET_STATISTICS)";
        let (fd, level) = (self.as_fd(), libc::SOL_PACKET);
        sockopt::get(
            fd,
            level,
            libc::PACKET_STATISTICS,
            &mut value,
            call_name,
            String::new,
        )?;
        Ok(Statistics {
            packets: value.packets.into(),
            drops: value.drops.into(),
        })
    }

    /// Takes and clears the error that waits on the socket; 0 when there is none. `ENETDOWN`: the device
    /// went down or is gone.
    ///
    /// # Errors
    /// Whatever getsockopt(2) reports.
    pub fn pending_error(&self) -> Result<i32> {
        sockopt::pending_error(self.as_fd())
    }

    /// Has the kernel send the slots that ask for it: an empty, non-blocking sendto(2).
    ///
    /// # Errors
    /// `EAGAIN` or `ENOBUFS` when the device or the send buffer is full: the slots stay as they are;
    /// `ENETDOWN`, `ENXIO` when the device is down or gone.
    pub fn flush(&self) -> std::result::Result<(), i32> {
        let fd = self.0.as_raw_fd() as usize;
        // SAFETY: no buffer and no address are given, so the kernel touches no memory of ours by this call
        // but the ring, which it owns jointly.
        unsafe { call(libc::SYS_sendto, [fd, 0, 0, libc::MSG_DONTWAIT as usize, 0, 0]) }.map(drop)
    }

    fn set<T: Plain>(
        &self,
        call_name: &'static str,
        name: i32,
        value: &T,
        args: impl FnOnce() -> String,
    ) -> Result<()> {
        sockopt::set(self.as_fd(), libc::SOL_PACKET, name, value, call_name, args)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn fanout_number(fanout: Fanout) -> u32 {
    match fanout {
        Fanout::Hash => libc::PACKET_FANOUT_HASH,
        Fanout::LoadBalance => libc::PACKET_FANOUT_LB,
        Fanout::Cpu => libc::PACKET_FANOUT_CPU,
        Fanout::Queue => libc::PACKET_FANOUT_QM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_those_of_the_kernel_header() {
        assert_eq!(size_of::<FrameHeader>(), size_of::<libc::tpacket3_hdr>());
        assert_eq!(size_of::<BlockHeader>(), 48);
        assert_eq!(BLOCK_STATUS_AT, 8);
        assert_eq!(std::mem::offset_of!(FrameHeader, status), 20);
        assert_eq!(std::mem::offset_of!(FrameHeader, hash), 28);
        assert_eq!(size_of::<TpacketReq3>(), 28);
        assert_eq!(size_of::<Program>(), size_of::<libc::sock_fprog>());
        assert_eq!(size_of::<Instruction>(), 8);
    }

    #[test]
    fn a_program_that_the_kernel_refuses_is_an_error() {
        let Ok(socket) = PacketSocket::open() else {
            println!("SKIPPED a_program_that_the_kernel_refuses_is_an_error: needs CAP_NET_RAW");
            return;
        };
        socket.attach_nothing().unwrap();
        let jump_to_nowhere = [Instruction {
            code: 0x05,
            jt: 0,
            jf: 0,
            k: 9,
        }];
        assert_eq!(
            socket.attach_classic(&jump_to_nowhere).unwrap_err().code(),
            "EINVAL"
        );
    }
}
