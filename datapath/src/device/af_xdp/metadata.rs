//! What the driver says of a frame: the XDP program leaves it in the frame's headroom, and it is read from there.
//!
//! ```text
//!                 bytes in front of the frame, in the machine's order
//!      -24            -16     -12      -10       -8                0
//!       | timestamp    | hash  | vlan   | present | marker         | Ethernet header ...
//!         nanoseconds            TCI      bits
//! ```
//!
//! A descriptor does not say whether anything stands there: the marker does. It is wiped once it was read, so that a
//! later frame in the same chunk, of which the program said nothing, is not given what was true of this one. Whoever
//! can write to the pool can forge it: what it says is never used as a length or an address.
//!
//! The program that writes it: `control/src/steering/rules/hints.ts`.

use crate::frame::{Frame, Metadata, Umem};

/// Bytes in front of the frame.
const LENGTH: usize = 24;
/// What stands last, as the program writes it.
const MARKER: u64 = u64::from_le_bytes(*b"bf-hint1");
const HASH: u16 = 1;
const TIMESTAMP: u16 = 2;
const VLAN: u16 = 4;

/// Reads what stands in front of `frame`, and wipes the marker.
#[inline]
pub(super) fn take(umem: &Umem, frame: &Frame) -> Option<Metadata> {
    let offset = frame.offset();
    if frame.pool() != umem.id() || ((offset & (umem.frame_size() - 1)) as usize) < LENGTH {
        return None;
    }
    let mut bytes = [0u8; LENGTH];
    // SAFETY: a frame lies in one chunk of the pool, which its holder owns, and its first byte is LENGTH or more
    // behind the chunk's, so that the bytes in front lie in the same chunk; the pool is mapped while `umem` lives.
    unsafe {
        let front = umem.base().as_ptr().add(offset as usize - LENGTH);
        std::ptr::copy_nonoverlapping(front, bytes.as_mut_ptr(), LENGTH);
        if u64::from_ne_bytes(field(&bytes, 16)) != MARKER {
            return None;
        }
        front.add(LENGTH - 8).cast::<[u8; 8]>().write([0; 8]);
    }
    Some(parse(&bytes))
}

fn parse(bytes: &[u8; LENGTH]) -> Metadata {
    let present = u16::from_ne_bytes(field(bytes, 14));
    let timestamp = u64::from_ne_bytes(field(bytes, 0));
    let has = |bit| present & bit != 0;
    Metadata {
        hash: has(HASH).then(|| u32::from_ne_bytes(field(bytes, 8))),
        // A driver that has no time for a frame says 0.
        timestamp: (has(TIMESTAMP) && timestamp != 0).then_some(timestamp),
        vlan: has(VLAN).then(|| u16::from_ne_bytes(field(bytes, 12))),
    }
}

#[inline]
fn field<const N: usize>(bytes: &[u8; LENGTH], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::frame::{Cache, HEADROOM, Owner, Pages, UmemConfig};

    fn pool() -> Arc<Umem> {
        Umem::map(&UmemConfig {
            frames: 64,
            pages: Pages::Ordinary,
            ..UmemConfig::default()
        })
        .unwrap()
    }

    /// A frame of 60 bytes `behind` its chunk's first byte, with `front` in front of it.
    fn frame(umem: &Arc<Umem>, behind: u32, front: &[u8]) -> Frame {
        let mut owner = Owner::new(umem).unwrap();
        let chunk = Cache::new(umem).take().unwrap();
        let start = owner.lend(chunk).unwrap() as u32 & !(umem.frame_size() - 1);
        let frame = owner.reclaim(u64::from(start + behind), 60).unwrap();
        let at = (start + behind) as usize - front.len();
        // SAFETY: within the chunk that was just taken, which the test alone has.
        unsafe {
            std::ptr::copy_nonoverlapping(front.as_ptr(), umem.base().as_ptr().add(at), front.len());
        }
        frame
    }

    fn said(timestamp: u64, hash: u32, vlan: u16, present: u16, marker: u64) -> Vec<u8> {
        [
            &timestamp.to_ne_bytes()[..],
            &hash.to_ne_bytes(),
            &vlan.to_ne_bytes(),
            &present.to_ne_bytes(),
            &marker.to_ne_bytes(),
        ]
        .concat()
    }

    #[test]
    fn what_the_program_wrote_is_read_once() {
        let umem = pool();
        let frame = frame(
            &umem,
            HEADROOM,
            &said(7, 8, 0x2009, HASH | TIMESTAMP | VLAN, MARKER),
        );
        let expected = Metadata {
            hash: Some(8),
            timestamp: Some(7),
            vlan: Some(0x2009),
        };
        assert_eq!(take(&umem, &frame), Some(expected));
        assert_eq!(
            take(&umem, &frame),
            None,
            "it is not there for the next frame of the chunk"
        );
    }

    #[test]
    fn only_what_is_marked_as_present_counts() {
        for (present, hash, timestamp, vlan) in [
            (0, None, None, None),
            (HASH, Some(8), None, None),
            (TIMESTAMP, None, Some(7), None),
            (VLAN, None, None, Some(9)),
            (u16::MAX, Some(8), Some(7), Some(9)),
        ] {
            let umem = pool();
            let frame = frame(&umem, HEADROOM, &said(7, 8, 9, present, MARKER));
            let expected = Metadata {
                hash,
                timestamp,
                vlan,
            };
            assert_eq!(take(&umem, &frame), Some(expected), "{present}");
        }
        let umem = pool();
        let never_stamped = frame(&umem, HEADROOM, &said(0, 8, 9, TIMESTAMP, MARKER));
        assert_eq!(take(&umem, &never_stamped), Some(Metadata::default()));
    }

    #[test]
    fn without_the_marker_nothing_was_said() {
        for bit in 0..64 {
            let umem = pool();
            let frame = frame(&umem, HEADROOM, &said(7, 8, 9, 7, MARKER ^ 1 << bit));
            assert_eq!(take(&umem, &frame), None, "{bit}");
        }
    }

    #[test]
    fn nothing_is_read_outside_of_the_frames_chunk() {
        let umem = pool();
        for behind in 0..LENGTH as u32 {
            let frame = frame(&umem, behind, &[]);
            assert_eq!(take(&umem, &frame), None, "{behind}");
        }
        let other = pool();
        let elsewhere = frame(&other, HEADROOM, &said(7, 8, 9, 7, MARKER));
        assert_eq!(take(&umem, &elsewhere), None);
    }
}
