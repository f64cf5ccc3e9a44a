//! The memory that an AF_PACKET ring shares with the kernel: blocks, headers, slots, status words.

use super::Version;

/// The head of a block of a TPACKET_V3 receive ring (`struct tpacket_block_desc`).
///
/// DATA OWNERSHIP: while `status` lacks [`STATUS_USER`] the kernel writes all of it; from then on nobody but
/// user space does, until it stores [`STATUS_KERNEL`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct BlockHeader {
    /// 1 for this layout.
    pub version: u32,
    /// Bytes from the block's start to its private area.
    pub offset_to_private: u32,
    /// [`STATUS_USER`], [`STATUS_LOSING`] and others.
    pub status: u32,
    /// Frames in the block.
    pub frames: u32,
    /// Bytes from the block's start to the first [`FrameHeader`].
    pub first_frame: u32,
    /// Bytes of the block that are used, padding included.
    pub used: u32,
    /// Rises by one each block.
    pub sequence: u64,
    /// When the block was opened: seconds and nanoseconds.
    pub first_at: [u32; 2],
    /// When its last frame came, or the block was closed by time.
    pub last_at: [u32; 2],
}

/// Bytes from a block's start to its status word.
pub const BLOCK_STATUS_AT: usize = std::mem::offset_of!(BlockHeader, status);

/// What stands before each frame of a TPACKET_V3 ring (`struct tpacket3_hdr`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FrameHeader {
    /// Bytes from this header to the next one; 0 at the block's last.
    pub next: u32,
    /// When the frame came: seconds.
    pub seconds: u32,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// Bytes of the frame that are here.
    pub captured: u32,
    /// Bytes the frame had.
    pub len: u32,
    /// `STATUS_*` bits.
    pub status: u32,
    /// Bytes from this header to the frame's first byte.
    pub mac_at: u16,
    /// Bytes from this header to the network header.
    pub network_at: u16,
    /// The flow's hash, when the ring was asked for it.
    pub hash: u32,
    /// The tag control information of a VLAN tag that the kernel took out of the frame.
    pub vlan_tci: u32,
    /// And its tag protocol, e.g. 0x8100.
    pub vlan_tpid: u16,
    /// Nothing.
    pub padding: [u16; 5],
}

/// The block, or slot, belongs to the kernel.
pub const STATUS_KERNEL: u32 = 0;
/// The block belongs to user space.
pub const STATUS_USER: u32 = 1;
/// Frames were lost before this one for lack of free blocks.
pub const STATUS_LOSING: u32 = 1 << 2;
/// The transport checksum is left to be made: the sender counted on the card.
pub const STATUS_CHECKSUM_NOT_READY: u32 = 1 << 3;
/// `vlan_tci` is valid.
pub const STATUS_VLAN_VALID: u32 = 1 << 4;
/// `vlan_tpid` is valid.
pub const STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// Transmit slot: free.
pub const STATUS_AVAILABLE: u32 = 0;
/// Transmit slot: to be sent.
pub const STATUS_SEND_REQUEST: u32 = 1;
/// Transmit slot: the kernel is sending it.
pub const STATUS_SENDING: u32 = 1 << 1;
/// Transmit slot: the kernel refused it.
pub const STATUS_WRONG_FORMAT: u32 = 1 << 2;

/// Where the parts of a transmit slot lie, in bytes from its start.
#[derive(Clone, Copy, Debug)]
pub struct SlotLayout {
    /// The status word, a u32.
    pub status: usize,
    /// The frame's length, a u32.
    pub len: usize,
    /// The frame itself.
    pub data: usize,
}

impl Version {
    /// Where the parts of a transmit slot lie: the header, then (TPACKET_HDRLEN less the address) the frame.
    #[must_use]
    pub fn transmit_slot(self) -> SlotLayout {
        match self {
            Version::V2 => SlotLayout {
                status: 0,
                len: 4,
                data: 32,
            },
            Version::V3 => SlotLayout {
                status: std::mem::offset_of!(FrameHeader, status),
                len: std::mem::offset_of!(FrameHeader, len),
                data: 48,
            },
        }
    }
}

/// Byte of a version 3 frame, from its header's start, that says how it came: `sll_pkttype` of the struct sockaddr_ll
/// behind the header (TPACKET_ALIGN, linux/if_packet.h).
pub const PACKET_TYPE_AT: u32 = (size_of::<FrameHeader>().next_multiple_of(16)
    + std::mem::offset_of!(libc::sockaddr_ll, sll_pkttype)) as u32;

/// `PACKET_OUTGOING`: this host sent it.
pub const PACKET_OUTGOING: u8 = 4;

/// A receive ring of blocks (`struct tpacket_req3`).
#[derive(Clone, Copy, Debug)]
pub struct ReceiveRing {
    /// Bytes of a block: a power of two, at least a page. No frame can be longer than one.
    pub block_size: u32,
    /// Blocks.
    pub blocks: u32,
    /// A block that is not full is handed over after this many milliseconds, at least 1.
    pub retire_ms: u32,
    /// Have the kernel work out each frame's flow hash, for which it takes the frame apart.
    pub hash: bool,
}

/// A transmit ring of slots (`struct tpacket_req`).
#[derive(Clone, Copy, Debug)]
pub struct TransmitRing {
    /// Bytes of a slot, header included: a power of two of at least 128.
    pub slot_size: u32,
    /// Slots, a power of two.
    pub slots: u32,
}

impl TransmitRing {
    /// Bytes of the whole ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot_size as usize * self.slots as usize
    }

    /// True for a ring without slots.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ReceiveRing {
    /// Bytes of the whole ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block_size as usize * self.blocks as usize
    }

    /// True for a ring without blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
