//! TCP segmentation: cutting a frame that is longer than any packet on the wire into those it stands for.
//!
//! A sender whose card promises to segment (TSO, NETIF_F_TSO of linux/netdev_features.h) hands over up to 64 KiB of
//! one TCP stream behind one set of headers. Over veth, from a virtual machine on the same host, or joined by the
//! kernel's own receive offload (GRO), such a frame reaches user space as it is.

use super::checksum::{TCP, fold, sum};
use super::headers::transport;

/// A TCP segment that is longer than one packet, and how it is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// Byte of the frame where the IP header starts.
    network: usize,
    /// Byte of the frame where the TCP header starts.
    transport: usize,
    /// Bytes of all headers, the Ethernet header included.
    headers: usize,
    /// Byte of the frame after the last of the payload.
    end: usize,
    /// Most bytes of payload in a packet.
    size: usize,
    is_v4: bool,
}

/// How `frame` is to be cut into packets of at most `mtu` bytes without their link header; `None` when it need
/// not be, or cannot be: anything but TCP over IPv4 or IPv6, whole, with `mtu` large enough for its headers.
#[must_use]
pub fn oversize(frame: &[u8], mtu: usize) -> Option<Oversize> {
    let found = transport(frame)?;
    let (network, start) = (usize::from(found.network), usize::from(found.start));
    if found.protocol != TCP || found.end - network <= mtu {
        return None;
    }
    // RFC 9293, section 3.1: the data offset, in words.
    let headers = start + 4 * usize::from(frame.get(start + 12)? >> 4);
    let size = mtu.checked_sub(headers - network).filter(|&size| size > 0)?;
    (headers >= start + 20 && headers < found.end).then_some(Oversize {
        network,
        transport: start,
        headers,
        end: found.end,
        size,
        is_v4: found.addresses.len() == 8,
    })
}

impl Oversize {
    /// Number of packets.
    #[must_use]
    pub fn count(&self) -> usize {
        (self.end - self.headers).div_ceil(self.size)
    }

    /// Bytes of headers before the payload, the Ethernet header included.
    #[must_use]
    pub fn headers(&self) -> usize {
        self.headers
    }

    /// Most bytes of payload in a packet.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether it goes over IPv4; IPv6 otherwise.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.is_v4
    }

    /// Bytes of the frame of packet `index`, from its Ethernet header on; 0 when there is no such packet.
    #[must_use]
    pub fn len(&self, index: usize) -> usize {
        let (from, to) = self.payload(index);
        if from < to { self.headers + to - from } else { 0 }
    }

    /// Whether it stands for no packet; it never does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn payload(&self, index: usize) -> (usize, usize) {
        let from = self
            .headers
            .saturating_add(index.saturating_mul(self.size))
            .min(self.end);
        (from, (from + self.size).min(self.end))
    }

    /// Writes packet `index` of `frame`, complete with its checksums, into `out`. False, and `out` undefined, when
    /// `out` is not of [`Oversize::len`] bytes or `frame` is not the one that was looked at.
    pub fn cut(&self, frame: &[u8], index: usize, out: &mut [u8]) -> bool {
        /// TCP flags (RFC 9293 and RFC 3168): those that only the last packet carries, and the one that only the
        /// first does.
        const FIN_PSH: u8 = 0x09;
        const CWR: u8 = 0x80;
        let (from, to) = self.payload(index);
        if from >= to || out.len() != self.headers + to - from {
            return false;
        }
        let (Some(headers), Some(payload)) = (frame.get(..self.headers), frame.get(from..to)) else {
            return false;
        };
        let (head, body) = out.split_at_mut(self.headers);
        head.copy_from_slice(headers);
        body.copy_from_slice(payload);
        let packet = out.len() - self.network;
        let (addresses, ip) = (self.addresses(), self.network);
        if self.is_v4 {
            put16(out, ip + 2, packet as u16);
            // RFC 6864: packets of one flow that may be fragmented need numbers of their own.
            let number = get16(out, ip + 4).wrapping_add(index as u16);
            put16(out, ip + 4, number);
            put16(out, ip + 10, 0);
            // Not by the length in the header: whoever shares the pool may have changed it since it was looked at.
            let made = !fold(sum(&out[ip..self.transport]));
            put16(out, ip + 10, made);
        } else {
            put16(out, ip + 4, (packet - 40) as u16);
        }
        let tcp = self.transport;
        let bytes_before = (from - self.headers) as u32;
        let sequence = u32::from_be_bytes([out[tcp + 4], out[tcp + 5], out[tcp + 6], out[tcp + 7]]);
        out[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(bytes_before).to_be_bytes());
        if to < self.end {
            out[tcp + 13] &= !FIN_PSH;
        }
        if index > 0 {
            out[tcp + 13] &= !CWR;
        }
        put16(out, tcp + 16, 0);
        let pseudo = sum(&out[addresses.0..addresses.1]) + u64::from(TCP) + (out.len() - tcp) as u64;
        let made = !fold(sum(&out[tcp..]) + pseudo);
        put16(out, tcp + 16, made);
        true
    }

    fn addresses(&self) -> (usize, usize) {
        let ip = self.network;
        if self.is_v4 {
            (ip + 12, ip + 20)
        } else {
            (ip + 8, ip + 40)
        }
    }
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::checksum::{UDP, verify};
    use crate::frame::test_frames::{Build, L3, Tag};
    use proptest::prelude::*;

    fn build(l3: L3, protocol: u8, payload: usize, tags: usize, options: u8) -> Build {
        Build {
            payload: (0..payload).map(|i| (i * 7 + i / 251) as u8).collect(),
            tags: vec![Tag::C; tags],
            l3,
            protocol,
            options,
            padding: 3,
            seed: 5,
        }
    }

    fn packets(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let found = oversize(frame, mtu).expect("longer than a packet");
        (0..found.count())
            .map(|index| {
                let mut out = vec![0xee; found.len(index)];
                assert!(found.cut(frame, index, &mut out));
                out
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_packets_are_the_stream_that_the_frame_was(
            v4: bool, payload in 1461..64_000usize, tags in 0..3usize, options in 0..3u8, mtu in 600..9000usize,
        ) {
            let l3 = if v4 { L3::V4 } else { L3::V6 };
            let built = build(l3, TCP, payload, tags, options);
            let mut frame = built.frame();
            let (tcp, _) = built.checksum_at();
            let network = 14 + 4 * tags;
            prop_assume!(frame.len() - 3 - network > mtu);
            frame[tcp + 13] = 0x99; // CWR, ACK, PSH, FIN
            let packets = packets(&frame, mtu);
            let mut stream = Vec::new();
            for (at, packet) in packets.iter().enumerate() {
                let last = at + 1 == packets.len();
                prop_assert!(packet.len() - network <= mtu);
                prop_assert!(last || packet.len() - network == mtu);
                prop_assert_eq!(verify(packet), Some(true));
                let found = transport(packet).expect("TCP");
                prop_assert_eq!(found.end, packet.len());
                let sequence = u32::from_be_bytes(packet[tcp + 4..tcp + 8].try_into().unwrap());
                prop_assert_eq!(sequence as usize, 1 + stream.len());
                let (first, fin) = (if at == 0 { 0x80 } else { 0 }, if last { 0x09 } else { 0 });
                prop_assert_eq!(packet[tcp + 13], 0x10 | first | fin);
                if v4 {
                    let header = &packet[network..network + 20 + 4 * usize::from(options)];
                    prop_assert_eq!(fold(sum(header)), 0xffff);
                    prop_assert_eq!(usize::from(get16(packet, network + 4)), 1 + at);
                }
                stream.extend_from_slice(&packet[tcp + 20..]);
            }
            prop_assert_eq!(stream, built.payload);
        }

        #[test]
        fn any_bytes_are_read_within_their_bounds(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), mtu in 0..200usize, v4: bool,
        ) {
            if bytes.len() > 40 {
                bytes[12..15].copy_from_slice(if v4 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] });
                bytes[if v4 { 23 } else { 20 }] = TCP;
                let rest = (bytes.len() - 14) as u16;
                if v4 {
                    put16(&mut bytes, 16, rest);
                    put16(&mut bytes, 20, 0);
                } else {
                    put16(&mut bytes, 18, rest.saturating_sub(40));
                }
            }
            if let Some(found) = oversize(&bytes, mtu) {
                for index in 0..found.count() {
                    let mut out = vec![0; found.len(index)];
                    prop_assert!(found.cut(&bytes, index, &mut out));
                }
                prop_assert_eq!(found.len(found.count()), 0);
                prop_assert!(!found.cut(&bytes, found.count(), &mut []));
            }
        }
    }

    #[test]
    fn a_frame_that_is_changed_after_it_was_looked_at_is_cut_within_its_bounds() {
        // The last packet has a byte of payload: less than the longest header has.
        let mut frame = build(L3::V4, TCP, 1441, 0, 0).frame();
        let found = oversize(&frame, 1480).expect("longer than a packet");
        frame[14] = 0x4f;
        frame[46] = 0xf0;
        for index in 0..found.count() {
            assert!(found.cut(&frame, index, &mut vec![0; found.len(index)]));
        }
    }

    #[test]
    fn what_fits_and_what_is_not_tcp_is_left_whole() {
        let fits = build(L3::V4, TCP, 1460, 0, 0).frame();
        assert_eq!(oversize(&fits, 1500), None);
        assert!(oversize(&fits, 1499).is_some());
        assert_eq!(oversize(&build(L3::V4, UDP, 9000, 0, 0).frame(), 1500), None);
        let mut fragment = build(L3::V4, TCP, 9000, 0, 0).frame();
        fragment[20] |= 0x20;
        assert_eq!(oversize(&fragment, 1500), None);
        assert_eq!(oversize(&build(L3::V4, TCP, 9000, 0, 0).frame(), 40), None);
    }
}
