//! Packets out of the buffers that the device has used: one each, or several merged (VIRTIO 1.2, section 5.1.6.4).

use crate::frame::{Cache, Frame, HEADROOM, Umem};
use crate::ring::virtio::{NET_HEADER, NUM_BUFFERS_AT, Used, feature};

/// Bytes of the largest packet without merging: an MTU of 1,500, Ethernet, two VLAN tags.
const PACKET: u32 = 1522;

/// What makes the packets of one ring. It ends with its ring, and so does a packet of which buffers are missing.
pub(super) struct Packets {
    /// Bytes of a packet that one buffer has room for.
    room: u32,
    /// The device may use several buffers for a packet.
    merges: bool,
    /// A packet in several buffers, of which some are still to come.
    merging: Option<Merging>,
}

/// What is there of a packet that several buffers are merged to.
struct Merging {
    /// In a jumbo frame; `None` when the packet is lost, and its buffers only go back.
    frame: Option<Frame>,
    /// Buffers still to come.
    left: u16,
}

/// What of the device's buffers made no packet.
#[derive(Default)]
pub(super) struct Lost {
    /// Buffers that cannot be, and packets that the device did not finish.
    pub(super) invalid: u64,
    /// Packets that no frame is long enough for.
    pub(super) too_long: u64,
    /// Packets that no jumbo frame was free for.
    pub(super) no_frames: u64,
}

impl Lost {
    pub(super) fn is_none(&self) -> bool {
        self.invalid + self.too_long + self.no_frames == 0
    }
}

impl Packets {
    pub(super) fn new(umem: &Umem, features: u64) -> Packets {
        Packets {
            room: (umem.frame_size() - HEADROOM - NET_HEADER).min(PACKET.next_multiple_of(64)),
            merges: features & feature::MRG_RXBUF != 0,
            merging: None,
        }
    }

    /// Bytes of a packet that one buffer has room for.
    pub(super) fn room(&self) -> u32 {
        self.room
    }

    /// Takes a buffer that the device has used; `frame` begins after the header. Gives a packet when that completes one.
    #[inline]
    pub(super) fn take(
        &mut self,
        frame: Frame,
        used: Used,
        cache: &mut Cache,
        lost: &mut Lost,
    ) -> Option<Frame> {
        let len = used.len.wrapping_sub(NET_HEADER);
        // A buffer that is not full ends its packet: its header need not be fetched to know that. A whole one, which has no
        // length, is not among these.
        if len.wrapping_sub(1) >= self.room || self.merging.is_some() || self.merges && len == self.room {
            return self.merge(frame, used, cache, lost);
        }
        Some(frame)
    }

    /// A buffer that is full, belongs to a packet in several, or cannot be.
    #[cold]
    fn merge(&mut self, mut frame: Frame, used: Used, cache: &mut Cache, lost: &mut Lost) -> Option<Frame> {
        let used = if used.whole {
            cache.set_len(&mut frame, self.room as usize);
            self.room + NET_HEADER
        } else {
            used.len
        };
        let fits = used <= self.room + NET_HEADER;
        if let Some(mut merging) = self.merging.take() {
            // Every buffer after the first is packet from its first byte on, where the first has its header.
            let whole = fits && used > 0;
            let appended = whole
                && cache.move_start(&mut frame, -(NET_HEADER as i32))
                && cache.set_len(&mut frame, used as usize)
                && merging
                    .frame
                    .as_mut()
                    .is_some_and(|to| cache.append(to, cache.bytes(&frame)));
            if !appended && let Some(unfinished) = merging.frame.take() {
                // It is too long, or a buffer of it cannot be.
                if whole {
                    lost.too_long += 1;
                } else {
                    lost.invalid += 1;
                }
                cache.give(unfinished);
            }
            cache.give(frame);
            merging.left -= 1;
            if merging.left > 0 {
                self.merging = Some(merging);
                return None;
            }
            return merging.frame;
        }
        let buffers = match cache.before_mut::<{ NET_HEADER as usize }>(&mut frame) {
            Some(header) if self.merges => {
                u16::from_le_bytes([header[NUM_BUFFERS_AT], header[NUM_BUFFERS_AT + 1]])
            }
            _ => 1,
        };
        if used <= NET_HEADER || !fits || buffers == 0 {
            lost.invalid += 1;
            cache.give(frame);
            return None;
        }
        if buffers == 1 {
            return Some(frame);
        }
        let mut whole = cache.take_jumbo();
        match &mut whole {
            Some(whole) => {
                cache.append(whole, cache.bytes(&frame));
            }
            None => lost.no_frames += 1,
        }
        cache.give(frame);
        self.merging = Some(Merging {
            frame: whole,
            left: buffers - 1,
        });
        None
    }

    /// No more buffers come: a packet of which some are missing is lost.
    pub(super) fn end(&mut self, cache: &mut Cache, lost: &mut Lost) {
        if let Some(unfinished) = self.merging.take().and_then(|merging| merging.frame) {
            lost.invalid += 1;
            cache.give(unfinished);
        }
    }
}
