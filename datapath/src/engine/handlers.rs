//! Handlers that need no other language: drop, count, reflect, forward.

use crate::frame::{Batch, Verdict};

use super::Handler;

/// Drops every frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Handler for Discard {
    fn handle(&mut self, _: &mut Batch) {
        // Drop is the default, and the loop counts it.
    }
}

/// Looks at every frame and drops it: the received counters say how many and how long, and each frame's first
/// byte has been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    multicast: u64,
}

impl Count {
    /// Frames sent to a group address (the lowest bit of the first byte, IEEE 802.3).
    #[must_use]
    pub fn multicast(&self) -> u64 {
        self.multicast
    }
}

impl Handler for Count {
    fn handle(&mut self, batch: &mut Batch) {
        batch.each(|bytes| {
            self.multicast += bytes.first().map_or(0, |b| u64::from(b & 1));
            Verdict::Drop
        });
    }
}

/// Swaps source and destination MAC and sends the frame back out of port 0. A frame too short for two MACs
/// is dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reflect;

impl Handler for Reflect {
    #[inline]
    fn handle(&mut self, batch: &mut Batch) {
        batch.each(|bytes| {
            if swap_macs(bytes) {
                Verdict::Send
            } else {
                Verdict::Drop
            }
        });
    }
}

/// Swaps the first six bytes with the next six. False, and nothing changed, when there are fewer than twelve.
#[inline]
fn swap_macs(bytes: &mut [u8]) -> bool {
    let Some(macs) = bytes.first_chunk_mut::<12>() else {
        return false;
    };
    // As one word of eight bytes and one of four, so that it stays in registers: dddddd ss | ssss.
    let (head, tail) = macs.split_at_mut(8);
    let (Ok(head), Ok(tail)) = (<&mut [u8; 8]>::try_from(head), <&mut [u8; 4]>::try_from(tail)) else {
        return false;
    };
    let (first, last) = (u64::from_le_bytes(*head), u64::from(u32::from_le_bytes(*tail)));
    *head = (first >> 48 | last << 16 | first << 48).to_le_bytes();
    *tail = ((first >> 16) as u32).to_le_bytes();
    true
}

/// Sends every frame, unchanged, out of a port.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// The port's place in the loop's list of outs.
    pub port: u8,
}

impl Handler for Forward {
    fn handle(&mut self, batch: &mut Batch) {
        batch.send_all(self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::swap_macs;

    #[test]
    fn macs_are_swapped_and_nothing_else_is() {
        let mut frame: Vec<u8> = (0..14).collect();
        assert!(swap_macs(&mut frame));
        assert_eq!(frame, [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 12, 13]);
    }

    #[test]
    fn a_frame_without_two_macs_is_left_alone() {
        let mut frame = [7u8; 11];
        assert!(!swap_macs(&mut frame));
        assert_eq!(frame, [7u8; 11]);
    }
}
