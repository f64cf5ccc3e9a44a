//! Virtqueues: split and packed, the driver's half and the device's, over memory that both ends map.
//!
//! ```text
//! split    descriptors [addr len flags next]   written by the driver
//!          available   [flags idx id...  used_event]   written by the driver
//!          used        [flags idx (id len)...  avail_event]   written by the device
//!
//! packed   descriptors [addr len id flags]   written by both, each slot by whoever has it
//!          driver's event [off_wrap flags]   written by the driver
//!          device's event [off_wrap flags]   written by the device
//!
//! DATA OWNERSHIP
//!   Each half keeps its own indices and what it had written; of what the other end writes it copies each value
//!   once, checks the copy and uses that. Nothing is ever read back from shared memory to decide what is owned:
//!   the driver names a buffer by an id, and its table of ids (`frame::Lent`) says which frame that is.
//! ```
//!
//! From the VIRTIO specification 1.2: section 2.7 (split) and 2.8 (packed). Generic over the transport: a half is
//! given places in memory and says when the other end is to be notified; how that is done is the caller's. Values in
//! shared memory are little-endian, as the machines are that this runs on.

mod copy;
pub mod feature;
mod packed_device;
mod packed_driver;
mod place;
mod regions;
mod split_device;
mod split_driver;

#[cfg(test)]
mod tests;

pub use copy::{copy_in, copy_out, prefetch_read, prefetch_write};
pub use packed_device::PackedDevice;
pub use packed_driver::PackedDriver;
pub use place::{Keep, Layout, Places};
pub use regions::{Region, Regions, Window};
pub use split_device::SplitDevice;
pub use split_driver::SplitDriver;

/// Bytes of the header before every packet (struct virtio_net_hdr, section 5.1.6): VERSION_1 has `num_buffers`
/// always.
pub const NET_HEADER: u32 = 12;

/// Where `num_buffers` is in it.
pub const NUM_BUFFERS_AT: usize = 10;

/// Most slots of a ring (section 2.7).
pub const SIZE_MAX: u16 = 32_768;

/// VIRTQ_DESC_F_NEXT: the buffer goes on.
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: for the device to write.
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: a table of descriptors.
pub const INDIRECT: u16 = 4;
/// VIRTQ_DESC_F_AVAIL of the packed layout.
pub(crate) const AVAIL: u16 = 1 << 7;
/// VIRTQ_DESC_F_USED of the packed layout.
pub(crate) const USED: u16 = 1 << 15;

/// VIRTQ_USED_F_NO_NOTIFY and VIRTQ_AVAIL_F_NO_INTERRUPT: no notification, please.
pub(crate) const NO_NOTIFY: u16 = 1;

/// RING_EVENT_FLAGS_ENABLE, DISABLE and DESC (section 2.8.10).
pub(crate) const EVENT_ENABLE: u16 = 0;
pub(crate) const EVENT_DISABLE: u16 = 1;
pub(crate) const EVENT_DESC: u16 = 2;

/// Bytes of a descriptor, in either layout.
pub(crate) const DESCRIPTOR: usize = 16;

/// Which layout a ring has, and what was negotiated for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Notifications are asked for by index.
    pub event_idx: bool,
    /// Buffers are used in order.
    pub in_order: bool,
}

impl Options {
    /// What of the negotiated features a ring needs to know.
    #[must_use]
    pub fn of(features: u64) -> Options {
        Options {
            event_idx: features & feature::EVENT_IDX != 0,
            in_order: features & feature::IN_ORDER != 0,
        }
    }
}

/// A buffer that the device has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The driver's name of it. Below the ring's size; whether the device had it, the caller's table says.
    pub id: u16,
    /// The device told of it by the entry of a buffer after it, as it may in order: it used all of it (section 2.7.9).
    pub whole: bool,
    /// Bytes that the device says it wrote. Untrusted; 0 of a whole one, of which it says nothing, and of one in whose turn
    /// it named a buffer that cannot be.
    pub len: u32,
}

impl Used {
    /// A buffer that has an entry of its own.
    #[inline(always)]
    fn told(id: u16, len: u32) -> Used {
        Used {
            id,
            whole: false,
            len,
        }
    }

    /// A buffer that a later one's entry stands for.
    fn whole(id: u16) -> Used {
        Used {
            id,
            whole: true,
            len: 0,
        }
    }
}

/// The driver's half of a virtqueue. Every buffer takes one slot of the ring.
pub trait DriverRing: Send {
    /// Slots.
    fn size(&self) -> u16;
    /// Whether its layout is the packed one, and that of its indirect tables ([`table`]).
    fn is_packed(&self) -> bool;
    /// Buffers that can be made available now.
    fn room(&self) -> u16;
    /// The id that the next buffer will have. Meaningless without room.
    fn next_id(&self) -> u16;
    /// Makes a buffer of `len` bytes at `addr` (as the device knows it) available, under [`DriverRing::next_id`];
    /// `flags` are [`WRITE`] and [`INDIRECT`]. The device sees it after [`DriverRing::publish`]. Nothing without room.
    fn add(&mut self, addr: u64, len: u32, flags: u16);
    /// Shows the device what was added.
    fn publish(&mut self);
    /// Whether the device asks to be notified of what was published since the last call.
    fn wants_kick(&mut self) -> bool;
    /// The next buffer that the device has used.
    fn pop_used(&mut self) -> Option<Used>;
    /// Gives an id back that the device does not hold any more.
    fn free(&mut self, id: u16);
    /// Asks the device to notify from now on; false when something was used meanwhile.
    fn enable_calls(&mut self) -> bool;
    /// Asks the device not to.
    fn disable_calls(&mut self);
    /// How often the device wrote what cannot be.
    fn hostile(&self) -> u64;
}

/// A buffer that the driver has made available: its first descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Where it is, as the driver knows it.
    pub addr: u64,
    /// Its bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`]: with neither NEXT nor INDIRECT it is the whole buffer.
    pub flags: u16,
    /// What to call it when it is used.
    pub id: u16,
    /// Slot of the first descriptor.
    pub slot: u16,
    /// Slots that it takes in the packed layout.
    pub slots: u16,
}

impl Head {
    /// One descriptor, for the device to read: nothing in it is for the device to write, whatever a chain or a table might
    /// say later on.
    #[inline]
    pub(crate) fn is_read_only(&self) -> bool {
        self.flags & (NEXT | WRITE | INDIRECT) == 0
    }
}

/// One piece of a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where it is, as the driver knows it.
    pub addr: u64,
    /// Its bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub write: bool,
}

/// The descriptors of an indirect table, each as its address and the 8 bytes after that: in the split layout they are
/// chained (section 2.7.5.3), in the packed one in order, without ids, and WRITE is the only flag (section 2.8.7).
#[must_use]
pub fn table<const N: usize>(pieces: [Piece; N], packed: bool) -> [[u64; 2]; N] {
    let mut at = 0;
    pieces.map(|piece| {
        at += 1;
        let write = if piece.write { u64::from(WRITE) } else { 0 };
        let flags = if packed {
            write << 48
        } else if at < N {
            (write | u64::from(NEXT)) << 32 | (at as u64) << 48
        } else {
            write << 32
        };
        [piece.addr, u64::from(piece.len) | flags]
    })
}

/// The ring is not one: what the driver wrote into it cannot be, and nothing sensible can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Most pieces of one buffer: what a guest's kernel makes of a packet at most (MAX_SKB_FRAGS and a header), with
/// room.
pub const PIECES_MAX: usize = 64;

/// The device's half of a virtqueue.
pub trait DeviceRing: Send {
    /// Slots.
    fn size(&self) -> u16;
    /// Whether its layout is the packed one.
    fn is_packed(&self) -> bool;
    /// Copies the heads of the next available buffers, at most `out.len()`; gives how many. They stay available
    /// until they are used.
    ///
    /// # Errors
    /// When the driver's index is impossible.
    fn look(&mut self, out: &mut [Head]) -> Result<usize, Broken>;
    /// Every piece of a buffer, chained or in an indirect table; gives how many. `None` when it is malformed:
    /// longer than [`PIECES_MAX`], a loop, an index beyond the ring, a table outside of `memory`.
    fn pieces(&self, head: &Head, memory: &mut Window, out: &mut [Piece; PIECES_MAX]) -> Option<usize>;
    /// Uses the next available buffer, which [`DeviceRing::look`] gave first, having written `len` bytes of it. The
    /// driver sees it after [`DeviceRing::publish`]. In order, several of nothing written may be told of by the last one's
    /// entry; but not one that was to be written, which the driver would take for full (section 2.7.9).
    fn complete(&mut self, head: &Head, len: u32);
    /// Shows the driver what was used.
    fn publish(&mut self);
    /// Whether the driver asks to be notified of what was published since the last call.
    fn wants_call(&mut self) -> bool;
    /// Asks the driver to notify from now on; false when something became available meanwhile.
    fn enable_kicks(&mut self) -> bool;
    /// Asks the driver not to.
    fn disable_kicks(&mut self);
    /// Where another device would go on, as VHOST_USER_GET_VRING_BASE has it.
    fn base(&self) -> u32;
}

/// Whether an event asked for at `event` lies in what was published from `old` to `new` (section 2.7.7.1).
#[inline]
pub(crate) fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
