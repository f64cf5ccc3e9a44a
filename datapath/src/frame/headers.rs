//! Where the transport header of a frame is: Ethernet, VLAN tags, IPv4 or IPv6 with extension headers.

use super::checksum::{TCP, UDP};

/// A whole (not fragmented) TCP segment or UDP datagram inside of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport<'a> {
    /// Byte of the frame where the IP header starts.
    pub network: u16,
    /// Source and destination address, next to each other as the header has them: 8 or 32 bytes.
    pub addresses: &'a [u8],
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Byte of the frame where the transport header starts.
    pub start: u16,
    /// Byte of the frame after the last of the payload; what follows is padding. Never beyond the frame.
    pub end: usize,
    /// Bytes from `start` to the checksum field.
    pub field: u16,
}

/// Most tags or extension headers walked over; no sender stacks as many.
const NESTING: usize = 8;

/// The TCP segment or UDP datagram of `frame`; `None` for anything else, for fragments and truncated frames.
#[inline]
#[must_use]
pub fn transport(frame: &[u8]) -> Option<Transport<'_>> {
    let mut at = 12;
    for _ in 0..NESTING {
        match be16(frame, at)? {
            0x0800 => return ipv4(frame, at + 2),
            0x86dd => return ipv6(frame, at + 2),
            // 802.1Q, 802.1ad, and the tag that came before 802.1ad.
            0x8100 | 0x88a8 | 0x9100 => at += 4,
            _ => return None,
        }
    }
    None
}

/// RFC 791, section 3.1.
fn ipv4(frame: &[u8], at: usize) -> Option<Transport<'_>> {
    let header = frame.get(at..at + 20)?;
    let words = usize::from(header[0] & 15);
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[0] >> 4 != 4 || words < 5 || fragment != 0 {
        return None;
    }
    let end = at + usize::from(be16(frame, at + 2)?);
    found(frame, at, &header[12..20], header[9], at + 4 * words, end)
}

/// RFC 8200, sections 3 and 4.
fn ipv6(frame: &[u8], at: usize) -> Option<Transport<'_>> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let header = frame.get(at..at + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let end = at + 40 + usize::from(be16(frame, at + 4)?);
    let mut next = header[6];
    let mut start = at + 40;
    for _ in 0..NESTING {
        match next {
            HOP_BY_HOP | DESTINATION => {}
            // On its way through a list of addresses the pseudo-header has the last of them, not the one in
            // the header: leave such a frame alone. Byte 3 is the number of segments left.
            ROUTING if *frame.get(start + 3)? == 0 => {}
            _ => return found(frame, at, &header[8..40], next, start, end),
        }
        next = *frame.get(start)?;
        start += 8 + 8 * usize::from(*frame.get(start + 1)?);
    }
    None
}

fn found<'a>(
    frame: &'a [u8],
    network: usize,
    addresses: &'a [u8],
    protocol: u8,
    start: usize,
    end: usize,
) -> Option<Transport<'a>> {
    let (field, shortest) = match protocol {
        TCP => (16, 20),
        UDP => (6, 8),
        _ => return None,
    };
    if end > frame.len() || end < start + shortest {
        return None;
    }
    Some(Transport {
        network: u16::try_from(network).ok()?,
        addresses,
        protocol,
        start: u16::try_from(start).ok()?,
        end,
        field,
    })
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
