//! The Internet checksum of TCP and UDP: finding one that a sender left to the card, and completing it.
//!
//! A sender whose card promises to make checksums (CHECKSUM_PARTIAL, include/linux/skbuff.h) leaves only the
//! pseudo-header's sum in the field. Over veth, and from a virtual machine on the same host, such a frame
//! reaches user space as it is. Nothing in it says so but the field itself: it equals the folded sum of the
//! pseudo-header, which a finished checksum does once in 65,535.

use super::headers::{Transport, transport};

/// A transport checksum that is still to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Byte of the frame where the transport header, and the sum, starts.
    pub start: u16,
    /// Bytes from `start` to the checksum field: 16 in TCP, 6 in UDP.
    pub offset: u16,
    /// Byte of the frame after the last one that is summed; padding may follow.
    pub end: usize,
}

/// The transport checksum that `frame` (from its Ethernet header on) still lacks, if it lacks one.
///
/// Knows TCP and UDP over IPv4 and IPv6, behind VLAN tags and IPv6 extension headers. `None` for any other
/// frame, for a fragment (a sender never leaves those to the card), for a truncated one, and for a field that
/// holds anything but the pseudo-header's sum.
#[inline]
#[must_use]
pub fn pending(frame: &[u8]) -> Option<Pending> {
    let found = transport(frame)?;
    let field = field_of(frame, &found)?;
    (field == fold(pseudo_header(&found))).then_some(Pending {
        start: found.start,
        offset: found.field,
        end: found.end,
    })
}

/// Makes the checksum that `pending` found lacking, in place. A place outside of the frame changes nothing.
pub fn complete(frame: &mut [u8], pending: Pending) {
    let start = usize::from(pending.start);
    let field = start + usize::from(pending.offset);
    let Some(covered) = frame.get(start..pending.end) else {
        return;
    };
    let sum = !fold(sum(covered));
    // RFC 768: a UDP sum of zero is sent as all ones, since zero says that there is none. For TCP both mean
    // the same number.
    let sum = if sum == 0 { 0xffff } else { sum };
    if let Some(slot) = frame.get_mut(field..field + 2) {
        slot.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Completes the transport checksum of `frame` when it was left to the card; true when it was.
pub fn complete_if_pending(frame: &mut [u8]) -> bool {
    match pending(frame) {
        Some(found) => {
            complete(frame, found);
            true
        }
        None => false,
    }
}

/// Whether the transport checksum of `frame` is right; `None` when it has none that is known here.
#[must_use]
pub fn verify(frame: &[u8]) -> Option<bool> {
    let found = transport(frame)?;
    let field = field_of(frame, &found)?;
    if found.protocol == UDP && field == 0 {
        return None;
    }
    let covered = frame.get(usize::from(found.start)..found.end)?;
    Some(fold(sum(covered) + pseudo_header(&found)) == 0xffff)
}

/// Protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// Protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

fn field_of(frame: &[u8], found: &Transport<'_>) -> Option<u16> {
    let at = usize::from(found.start) + usize::from(found.field);
    let bytes = frame.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn pseudo_header(found: &Transport<'_>) -> u64 {
    let length = found.end - usize::from(found.start);
    sum(found.addresses) + u64::from(found.protocol) + length as u64
}

/// The sum of RFC 1071 over `bytes` as big-endian 16-bit words, not yet folded; an odd last byte is the high
/// half of a word. Sums of pieces of even length add up.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    // RFC 1071 section 2(B): the order of bytes may be put right after summing, so sum native 32-bit words;
    // 2^32 of them fit the accumulator.
    let mut total = 0u64;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        total += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut last = [0u8; 4];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

/// `sum` with its carries added in until 16 bits remain: zero only when nothing but zeros was summed.
#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::test_frames::{Build, L3, Tag};
    use proptest::prelude::*;

    /// RFC 1071 as its first section says it: 16-bit words, end-around carry after each.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    fn any_build() -> impl Strategy<Value = Build> {
        let payload = proptest::collection::vec(any::<u8>(), 0..2000);
        let tags = proptest::collection::vec(prop_oneof![Just(Tag::C), Just(Tag::S)], 0..3);
        let l3 = prop_oneof![Just(L3::V4), Just(L3::V6)];
        let protocol = prop_oneof![Just(TCP), Just(UDP)];
        (payload, tags, l3, protocol, 0..3u8, 0..20usize, any::<u8>()).prop_map(
            |(payload, tags, l3, protocol, options, padding, seed)| Build {
                payload,
                tags,
                l3,
                protocol,
                options,
                padding,
                seed,
            },
        )
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_plain_one(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..150usize) {
            prop_assert_eq!(fold(sum(&bytes)), naive(&bytes));
            let at = (2 * at).min(bytes.len() & !1);
            prop_assert_eq!(fold(sum(&bytes[..at]) + sum(&bytes[at..])), naive(&bytes));
        }

        #[test]
        fn a_checksum_left_to_the_card_is_found_and_completed(build in any_build()) {
            let mut frame = build.frame();
            let (start, field) = build.checksum_at();
            frame[start + field..start + field + 2].copy_from_slice(&naive(&build.pseudo_header()).to_be_bytes());
            let found = pending(&frame);
            prop_assert_eq!(found, Some(Pending { start: start as u16, offset: field as u16, end: frame.len() - build.padding }));
            let untouched = frame.clone();
            prop_assert!(complete_if_pending(&mut frame));
            prop_assert_eq!(verify(&frame), Some(true));
            // The receiver's own rule, worked out the plain way.
            let mut all = build.pseudo_header();
            all.extend_from_slice(&frame[start..frame.len() - build.padding]);
            prop_assert_eq!(naive(&all), 0xffff);
            for (i, (now, then)) in frame.iter().zip(&untouched).enumerate() {
                prop_assert!(now == then || i == start + field || i == start + field + 1);
            }
        }

        #[test]
        fn a_finished_checksum_is_left_alone(build in any_build()) {
            let mut frame = build.frame();
            let (start, field) = build.checksum_at();
            let mut all = build.pseudo_header();
            all.extend_from_slice(&frame[start..frame.len() - build.padding]);
            let made = match !naive(&all) { 0 => 0xffff, sum => sum };
            frame[start + field..start + field + 2].copy_from_slice(&made.to_be_bytes());
            prop_assert_eq!(verify(&frame), Some(true));
            let before = frame.clone();
            complete_if_pending(&mut frame);
            // One in 65,535 looks like a pseudo-header's sum; completing it gives the same number again.
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn a_cut_frame_lacks_nothing_and_nothing_panics(build in any_build(), cut in any::<prop::sample::Index>()) {
            let mut frame = build.frame();
            let (start, field) = build.checksum_at();
            frame[start + field..start + field + 2].copy_from_slice(&naive(&build.pseudo_header()).to_be_bytes());
            let whole = frame.len() - build.padding;
            frame.truncate(cut.index(whole));
            prop_assert_eq!(pending(&frame), None);
            prop_assert!(!complete_if_pending(&mut frame));
        }

        #[test]
        fn any_bytes_are_read_within_their_bounds(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<prop::sample::Index>()) {
            let kinds = [0x0800u16, 0x86dd, 0x8100, 0x88a8];
            if bytes.len() > 14 {
                bytes[12..14].copy_from_slice(&kinds[kind.index(4)].to_be_bytes());
                bytes[14] = bytes[14] & 15 | if kind.index(4) == 0 { 0x40 } else { 0x60 };
            }
            let _ = verify(&bytes);
            complete_if_pending(&mut bytes);
            complete(&mut bytes, Pending { start: 65535, offset: 65535, end: 7 });
        }
    }

    fn udp(l3: L3) -> (Build, Vec<u8>) {
        let build = Build {
            payload: b"odd".to_vec(),
            tags: vec![],
            l3,
            protocol: UDP,
            options: 0,
            padding: 0,
            seed: 7,
        };
        let mut frame = build.frame();
        let (start, field) = build.checksum_at();
        frame[start + field..start + field + 2].copy_from_slice(&naive(&build.pseudo_header()).to_be_bytes());
        (build, frame)
    }

    #[test]
    fn a_fragment_is_left_alone() {
        for (byte, bit) in [(20, 0x20), (20, 0x01), (21, 0x01)] {
            let (_, mut frame) = udp(L3::V4);
            assert!(pending(&frame).is_some());
            frame[byte] |= bit;
            assert_eq!(pending(&frame), None, "bit {bit:#x} of byte {byte}");
        }
        let (_, mut frame) = udp(L3::V4);
        frame[20] |= 0x40;
        assert!(pending(&frame).is_some(), "DF is no fragment");
        // IPv6: the same datagram behind a fragment header (RFC 8200, section 4.5).
        let (_, mut frame) = udp(L3::V6);
        frame[18..20].copy_from_slice(&(8u16 + 11).to_be_bytes());
        frame[20] = 44;
        frame.splice(54..54, [UDP, 0, 0, 1, 0, 0, 0, 9]);
        assert_eq!(pending(&frame), None);
    }

    #[test]
    fn a_datagram_without_a_checksum_is_left_without() {
        let (build, mut frame) = udp(L3::V4);
        let (start, field) = build.checksum_at();
        frame[start + field..start + field + 2].fill(0);
        assert_eq!(pending(&frame), None);
        assert_eq!(verify(&frame), None);
    }

    #[test]
    fn extension_headers_are_walked_and_a_pending_route_is_not_guessed() {
        let (_, plain) = udp(L3::V6);
        for (next, left, expected) in [
            (0, 9, true),
            (60, 9, true),
            (43, 0, true),
            (43, 1, false),
            (51, 0, false),
        ] {
            let mut frame = plain.clone();
            frame[18..20].copy_from_slice(&(8u16 + 11).to_be_bytes());
            frame[20] = next;
            frame.splice(54..54, [UDP, 0, 4, left, 0, 0, 0, 0]);
            assert_eq!(
                pending(&frame).is_some(),
                expected,
                "next header {next}, {left} left"
            );
        }
    }
}
