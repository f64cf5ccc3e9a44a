//! Frames for tests: Ethernet, tags, IPv4 or IPv6, TCP or UDP, any payload, with the checksum field zero.

use super::checksum::TCP;

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub enum Tag {
    /// 802.1Q.
    C,
    /// 802.1ad.
    S,
}

/// The network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a frame is made of.
#[derive(Clone, Debug)]
pub struct Build {
    pub payload: Vec<u8>,
    pub tags: Vec<Tag>,
    pub l3: L3,
    pub protocol: u8,
    /// IPv4: words of options. IPv6: extension headers of 8 bytes.
    pub options: u8,
    /// Bytes after the IP packet.
    pub padding: usize,
    /// What the addresses are made from.
    pub seed: u8,
}

impl Build {
    fn addresses(&self) -> Vec<u8> {
        let len = if self.l3 == L3::V4 { 8 } else { 32 };
        (0..len)
            .map(|i| self.seed.wrapping_mul(31).wrapping_add(i * 7))
            .collect()
    }

    fn transport_header(&self) -> usize {
        if self.protocol == TCP { 20 } else { 8 }
    }

    /// Where the transport header starts, and the checksum field in it.
    pub fn checksum_at(&self) -> (usize, usize) {
        let l3 = match self.l3 {
            L3::V4 => 20 + 4 * usize::from(self.options),
            L3::V6 => 40 + 8 * usize::from(self.options),
        };
        let field = if self.protocol == TCP { 16 } else { 6 };
        (14 + 4 * self.tags.len() + l3, field)
    }

    /// RFC 9293, section 3.1, or RFC 8200, section 8.1.
    pub fn pseudo_header(&self) -> Vec<u8> {
        let length = (self.transport_header() + self.payload.len()) as u32;
        let mut bytes = self.addresses();
        match self.l3 {
            L3::V4 => {
                bytes.extend_from_slice(&[0, self.protocol]);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            L3::V6 => {
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&[0, 0, 0, self.protocol]);
            }
        }
        bytes
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            frame.extend_from_slice(if matches!(tag, Tag::C) {
                &[0x81, 0x00]
            } else {
                &[0x88, 0xa8]
            });
            frame.extend_from_slice(&[0, 9]);
        }
        let transport = self.transport_header() + self.payload.len();
        match self.l3 {
            L3::V4 => {
                frame.extend_from_slice(&[0x08, 0x00]);
                let header = 20 + 4 * usize::from(self.options);
                frame.extend_from_slice(&[0x45 + self.options, 0]);
                frame.extend_from_slice(&((header + transport) as u16).to_be_bytes());
                frame.extend_from_slice(&[0, 1, 0, 0, 64, self.protocol, 0, 0]);
                frame.extend_from_slice(&self.addresses());
                frame.extend(std::iter::repeat_n(1, header - 20));
            }
            L3::V6 => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                let extensions = usize::from(self.options);
                frame.extend_from_slice(&((8 * extensions + transport) as u16).to_be_bytes());
                let next = if extensions > 0 { 60 } else { self.protocol };
                frame.extend_from_slice(&[next, 64]);
                frame.extend_from_slice(&self.addresses());
                for left in (0..extensions).rev() {
                    let next = if left > 0 { 60 } else { self.protocol };
                    frame.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]);
                }
            }
        }
        frame.extend_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        if self.protocol == TCP {
            frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        } else {
            frame.extend_from_slice(&(transport as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 0]);
        }
        frame.extend_from_slice(&self.payload);
        frame.extend(std::iter::repeat_n(0xaa, self.padding));
        frame
    }
}
