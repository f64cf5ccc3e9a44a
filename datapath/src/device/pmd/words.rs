//! The two words of a descriptor, as Intel's gigabit controllers have them.
//!
//! ```text
//!   receive, read by the device      63 ------------------------------------------------- 0
//!     word 0                         address of the buffer
//!     word 1                         0 (no header buffer)
//!   receive, written back
//!     word 0                         RSS hash (32)          | packet and RSS type (32)
//!     word 1                         VLAN (16) | length (16) | errors (12) | status (20)
//! ```
//!
//! That is the advanced descriptor with one buffer of the 82576 (7.1.5) and the extended one of the 82574 (7.1.4).

/// Word 1 of a received packet: descriptor done, end of packet.
const DONE: u64 = 1 << 0;
const END_OF_PACKET: u64 = 1 << 1;
/// Word 1: an error of the frame itself (CRC, symbol, sequence: RXE, bit 31).
const RECEIVE_ERROR: u64 = 1 << 31;

/// Bytes of the longest frame that is received and sent: 1,500, an Ethernet header and two VLAN tags.
pub const LONGEST: u32 = 1522;

/// Bytes of an Ethernet header: no frame is shorter.
pub const SHORTEST: u32 = 14;

/// Whether the device is done with a receive descriptor.
#[inline]
pub(super) fn is_done(word: u64) -> bool {
    word & DONE != 0
}

/// Whether a received descriptor holds one whole frame without an error.
#[inline]
pub(super) fn is_whole(word: u64) -> bool {
    word & (END_OF_PACKET | RECEIVE_ERROR) == END_OF_PACKET
}

/// Whether a received descriptor is the last of its frame.
#[inline]
pub(super) fn is_last(word: u64) -> bool {
    word & END_OF_PACKET != 0
}

/// Length that a received descriptor claims.
#[inline]
pub(super) fn length(word: u64) -> u32 {
    (word >> 32) as u32 & 0xffff
}

/// Word 1 of a transmit descriptor, and its DD bit when it is written back: bit 32 in both formats.
#[derive(Clone, Copy, Debug)]
pub struct TransmitWords {
    /// The bits that every descriptor has.
    command: u64,
    /// Ask for DD when it is done (RS).
    report: u64,
    /// The length stands at this bit too (PAYLEN); none where there is no second length.
    payload_at: Option<u32>,
}

/// The 82576's advanced data descriptor (7.2.2.3): DTYP 0011b, DEXT, IFCS, EOP; PAYLEN from bit 46 on.
pub const ADVANCED: TransmitWords = TransmitWords {
    command: 0b0011 << 20 | 1 << 29 | 1 << 25 | 1 << 24,
    report: 1 << 27,
    payload_at: Some(46),
};

/// The 82574's legacy descriptor (7.2.10.1): IFCS, EOP.
pub const LEGACY: TransmitWords = TransmitWords {
    command: 1 << 25 | 1 << 24,
    report: 1 << 27,
    payload_at: None,
};

impl TransmitWords {
    /// Word 1 for a frame of `len` bytes.
    #[inline]
    #[must_use]
    pub fn word(self, len: u32) -> u64 {
        let payload = self.payload_at.map_or(0, |bit| u64::from(len) << bit);
        self.command | u64::from(len) | payload
    }

    /// The bit that asks for DD.
    #[inline]
    #[must_use]
    pub fn report(self) -> u64 {
        self.report
    }

    /// Whether the device is done with a transmit descriptor.
    #[inline]
    #[must_use]
    pub fn is_done(word: u64) -> bool {
        word & 1 << 32 != 0
    }
}
