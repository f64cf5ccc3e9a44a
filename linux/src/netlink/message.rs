//! Netlink messages: a writer, and readers that never look past what arrived (RFC 3549; netlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Attributes and messages start at multiples of this.
const ALIGN: usize = 4;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER are flags in an attribute's type.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// Flags of a message (include/uapi/linux/netlink.h).
pub mod flag {
    /// It asks the kernel for something.
    pub const REQUEST: u16 = 1;
    /// The kernel shall answer with success or failure.
    pub const ACK: u16 = 4;
    /// The dump was disturbed and may be inconsistent.
    pub const DUMP_INTR: u16 = 0x10;
    /// Every object of that type.
    pub const DUMP: u16 = 0x300;
    /// Fail when it exists.
    pub const EXCL: u16 = 0x200;
    /// Create what does not exist.
    pub const CREATE: u16 = 0x400;
    /// In an error: the request's payload is left out.
    pub const CAPPED: u16 = 0x100;
    /// In an error: attributes explain it.
    pub const ACK_TLVS: u16 = 0x200;
}

/// A message being written, in host byte order as netlink wants it.
#[derive(Debug, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// A message of type `kind` that begins with `body` (the family's fixed struct).
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(body);
        pad(&mut bytes);
        Self(bytes)
    }

    /// Appends fixed bytes (the struct that opens a nested message), padded.
    #[must_use]
    pub fn fixed(mut self, body: &[u8]) -> Self {
        self.0.extend_from_slice(body);
        pad(&mut self.0);
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a string with its ending NUL.
    #[must_use]
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute whose content `fill` writes.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        filled
    }

    /// The message's type.
    #[must_use]
    pub fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.0[4], self.0[5]])
    }

    /// The message's bytes, with its length, `sequence` and more `flags` filled in.
    #[must_use]
    pub fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = self.0.len() as u32;
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

/// A message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// Its type, e.g. RTM_NEWLINK.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The sequence number of the request it answers, zero for an event.
    pub sequence: u32,
    /// What follows its header.
    pub body: &'a [u8],
}

/// The messages of one datagram; ends at the first that does not fit.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let body = datagram.get(HEADER..length)?;
        let message = Received {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            sequence: u32_at(datagram, 8)?,
            body,
        };
        datagram = datagram.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(message)
    })
}

/// An attribute that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without flags.
    pub kind: u16,
    /// Its content.
    pub value: &'a [u8],
}

/// The attributes in `bytes`; ends at the first that does not fit.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    })
}

impl<'a> Attribute<'a> {
    /// Its content as a number of at most 8 bytes, host byte order.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        Some(match self.value.len() {
            1 => u64::from(self.value[0]),
            2 => u64::from(u16_at(self.value, 0)?),
            4 => u64::from(u32_at(self.value, 0)?),
            8 => u64::from_ne_bytes(self.value.try_into().ok()?),
            _ => return None,
        })
    }

    /// Its content as a number of 32 bits.
    #[must_use]
    pub fn u32(&self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    /// Its content up to the first NUL.
    #[must_use]
    pub fn text(&self) -> String {
        let end = self
            .value
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// Its content as an address of four or sixteen bytes.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        address(self.value)
    }

    /// The attributes in it.
    pub fn nested(&self) -> impl Iterator<Item = Attribute<'a>> {
        attributes(self.value)
    }
}

/// An IP address of four or sixteen bytes.
#[must_use]
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
}

/// The 16-bit number at byte `at`, host byte order.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The 32-bit number at byte `at`, host byte order.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_netlink_wants_it() {
        let message = Message::new(16, flag::CREATE, &[9, 0, 0, 0])
            .string(3, "veth0")
            .nested(18, |m| m.string(1, "v").number(2, 0x0102_0304));
        #[rustfmt::skip]
        let expected = [
            52, 0, 0, 0, 16, 0, 0x05, 0x04, 7, 0, 0, 0, 0, 0, 0, 0, // length, type, flags, sequence, port
            9, 0, 0, 0,
            10, 0, 3, 0, b'v', b'e', b't', b'h', b'0', 0, 0, 0,     // padded, the padding not counted
            20, 0, 18, 0x80,                                       // nested, flagged so
            6, 0, 1, 0, b'v', 0, 0, 0,
            8, 0, 2, 0, 4, 3, 2, 1,
        ];
        let written = message.finish(7, flag::ACK);
        assert_eq!(written, expected);
        let read: Vec<_> = messages(&written).collect();
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (1, 16, 7));
        let inner: Vec<_> = attributes(&read[0].body[4..]).collect();
        assert_eq!(inner[0].text(), "veth0");
        let nested: Vec<_> = inner[1].nested().collect();
        assert_eq!((inner[1].kind, nested[1].u32()), (18, Some(0x0102_0304)));
    }

    #[test]
    fn what_is_cut_short_ends_the_reading() {
        let whole = Message::new(16, 0, &[]).number(4, 1500).finish(1, 0);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
        }
        // An attribute that claims more than is there, and one shorter than its own header.
        assert_eq!(attributes(&[9, 0, 1, 0, 1, 2, 3, 4]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    #[test]
    fn the_last_attribute_may_lack_its_padding() {
        let read: Vec<_> = attributes(&[5, 0, 2, 0, 7]).collect();
        assert_eq!(read, [Attribute { kind: 2, value: &[7] }]);
        assert_eq!(read[0].number(), Some(7));
    }
}
