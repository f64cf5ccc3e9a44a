//! Sending: frames are copied into the slots of a ring, which the kernel empties when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bifurcate_linux::memory::Mapping;
use bifurcate_linux::packet::{
    PacketSocket, STATUS_SEND_REQUEST, STATUS_SENDING, SlotLayout, TransmitRing, Version,
};

use crate::device::{Counters, Mtu, TxQueue};
use crate::frame::Batch;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: u32 = 14;

/// Bytes of a VLAN tag.
const VLAN_TAG: u32 = 4;

/// The sending half of an AF_PACKET queue.
pub(super) struct Tx {
    socket: PacketSocket,
    ring: Mapping,
    ring_layout: TransmitRing,
    slot: SlotLayout,
    mtu: Mtu,
    /// Most bytes of a frame: what a slot holds, and what the device takes, as its MTU was when this batch came.
    longest: u32,
    /// The slot that is filled next.
    next: u32,
    /// Slots filled that the kernel may not have looked at.
    asked: bool,
    counters: Arc<Counters>,
}

impl Tx {
    pub(super) fn new(
        socket: PacketSocket,
        ring: Mapping,
        version: Version,
        ring_layout: TransmitRing,
        mtu: &Mtu,
    ) -> Tx {
        let slot = version.transmit_slot();
        assert!(ring.len() >= ring_layout.len() && ring_layout.slot_size as usize > slot.data);
        Tx {
            socket,
            ring,
            ring_layout,
            slot,
            mtu: mtu.clone(),
            longest: 0,
            next: 0,
            asked: false,
            counters: Arc::default(),
        }
    }

    fn slot_base(&self) -> *mut u8 {
        let offset = self.next as usize * self.ring_layout.slot_size as usize;
        // SAFETY: `next` is below the number of slots, and the constructor saw that the mapping holds them.
        unsafe { self.ring.base().as_ptr().add(offset) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: the status word lies within the slot, aligned to four bytes (slots are powers of two of at
        // least 128), and is mapped while `self` lives; both sides treat it as atomic.
        unsafe { AtomicU32::from_ptr(self.slot_base().add(self.slot.status).cast()) }
    }

    /// Whether the next slot may be filled.
    fn is_free(&self) -> bool {
        self.status().load(Ordering::Acquire) & (STATUS_SEND_REQUEST | STATUS_SENDING) == 0
    }

    /// Copies a frame into the next slot, which is free.
    fn fill(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.longest as usize);
        let base = self.slot_base();
        // SAFETY: a free slot belongs to user space; `longest` says that data and header fit into it, and the
        // length word is aligned like the status word.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(self.slot.data), bytes.len());
            base.add(self.slot.len).cast::<u32>().write(bytes.len() as u32);
        }
        self.status().store(STATUS_SEND_REQUEST, Ordering::Release);
        self.next = (self.next + 1) % self.ring_layout.slots;
        self.asked = true;
    }

    /// Has the kernel send what was filled. What it cannot take now stays in its slot for the next time.
    fn flush(&mut self) {
        if self.asked {
            self.asked = self.socket.flush().is_err();
        }
    }
}

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let device = self.mtu.get().saturating_add(ETHERNET_HEADER + VLAN_TAG);
        self.longest = (self.ring_layout.slot_size - self.slot.data as u32).min(device);
        let (mut frames, mut bytes) = (0u64, 0u64);
        let mut tried = false;
        while let Some(frame) = batch.next_send() {
            let cache = batch.cache_mut();
            if frame.len() < ETHERNET_HEADER {
                self.counters.handler_invalid.add(1);
            } else if frame.len() > self.longest {
                self.counters.too_long.add(1);
            } else {
                if !self.is_free() && !tried {
                    tried = true;
                    self.asked = true;
                    self.flush();
                }
                if self.is_free() {
                    self.fill(cache.bytes(&frame));
                    frames += 1;
                    bytes += u64::from(frame.len());
                } else {
                    self.counters.ring_full.add(1);
                }
            }
            cache.give(frame);
        }
        self.flush();
        self.counters.sent.add(frames);
        self.counters.sent_bytes.add(bytes);
        frames as usize
    }

    fn is_waiting(&self) -> bool {
        self.asked
    }

    fn mtu(&self) -> Option<&Mtu> {
        Some(&self.mtu)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}
