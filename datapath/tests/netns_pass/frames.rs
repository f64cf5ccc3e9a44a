//! UDP frames from the peer to the card, with a checksum finished, left to the card, or wrong.

use std::net::IpAddr;

use super::lab::{CARD_MAC, PEER_MAC};

/// What stands in the checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The checksum.
    Finished,
    /// Only the pseudo-header's sum.
    Pending,
    /// Something else.
    Wrong,
}

/// A UDP datagram in a frame.
#[derive(Clone, Debug)]
pub struct Udp {
    pub to_mac: [u8; 6],
    pub vlan: Option<u16>,
    pub from: IpAddr,
    pub to: IpAddr,
    pub port: u16,
    pub payload: usize,
    pub sum: Sum,
}

impl Udp {
    /// From the peer to the card, IPv4.
    pub fn v4(port: u16, payload: usize, sum: Sum) -> Udp {
        Udp {
            to_mac: CARD_MAC,
            vlan: None,
            from: [10, 77, 0, 2].into(),
            to: [10, 77, 0, 1].into(),
            port,
            payload,
            sum,
        }
    }

    /// From the peer to the card, IPv6.
    pub fn v6(port: u16, payload: usize, sum: Sum) -> Udp {
        let address = |last| IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, last]);
        Udp {
            from: address(2),
            to: address(1),
            ..Udp::v4(port, payload, sum)
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let length = 8 + self.payload;
        let mut udp = Vec::with_capacity(length);
        for word in [4000, self.port, length as u16, 0] {
            udp.extend_from_slice(&word.to_be_bytes());
        }
        udp.extend((0..self.payload).map(|i| i as u8));

        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let addresses = [octets(self.from), octets(self.to)].concat();
        let mut pseudo = addresses.clone();
        pseudo.extend_from_slice(&(length as u32).to_be_bytes());
        pseudo.extend_from_slice(&[0, 0, 0, 17]);
        let field = match self.sum {
            Sum::Pending => sum(&pseudo),
            Sum::Finished => !sum(&[pseudo, udp.clone()].concat()),
            Sum::Wrong => 0x1234,
        };
        udp[6..8].copy_from_slice(&field.to_be_bytes());

        let mut frame = [self.to_mac, PEER_MAC].concat();
        if let Some(vlan) = self.vlan {
            frame.extend_from_slice(&[0x81, 0]);
            frame.extend_from_slice(&vlan.to_be_bytes());
        }
        match self.to {
            IpAddr::V4(_) => {
                frame.extend_from_slice(&[8, 0]);
                let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
                header[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
                header.extend_from_slice(&addresses);
                let checksum = !sum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend_from_slice(&header);
            }
            IpAddr::V6(_) => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
                frame.extend_from_slice(&[17, 64]);
                frame.extend_from_slice(&addresses);
            }
        }
        frame.extend_from_slice(&udp);
        frame
    }
}

/// RFC 1071, the plain way.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
