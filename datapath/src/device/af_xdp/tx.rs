//! Sending: frames of the batch become descriptors of the tx ring, completions come back to the pool.

use std::sync::Arc;

use bifurcate_linux::memory::Mapping;
use bifurcate_linux::xsk::{CONTINUED, NEED_WAKEUP};

use super::socket::QueueSocket;
use crate::device::{Counters, Mtu, TxQueue};
use crate::frame::{Batch, Cache, Frame, HEADROOM, Owner};
use crate::ring::{Consumer, Descriptor, Mapped, Producer};

/// Bytes of an Ethernet header: no frame is shorter.
const ETHERNET_HEADER: u32 = 14;

/// Bytes of two VLAN tags: what a frame may have beyond the device's MTU and its Ethernet header.
const TAGS: u32 = 8;

/// Most pieces a frame is split into: the kernel puts a packet of a copy-mode socket into one skb, which has
/// room for 17 (MAX_SKB_FRAGS, include/linux/skbuff.h).
const PIECES_MAX: usize = 17;

/// Completions are collected when the tx ring is more than this part full, and when it is asked for.
const COLLECT_AT: u32 = 4;

/// The sending half of an AF_XDP queue.
pub(super) struct Tx {
    socket: Arc<QueueSocket>,
    tx: Producer<Mapped<Descriptor, Mapping>>,
    completion: Consumer<Mapped<u64, Mapping>>,
    /// `None` only while being dropped.
    owner: Option<Owner>,
    modes: Modes,
    /// Frames are in the tx ring that the kernel had not taken when it was last called.
    waiting: bool,
    mtu: Mtu,
    /// Most bytes of a frame, as the MTU was when this batch came: the kernel drops longer ones unseen.
    longest: u32,
    counters: Arc<Counters>,
    invalid_seen: u64,
    hostile: u64,
}

/// How the queue was bound.
#[derive(Clone, Copy)]
pub(super) struct Modes {
    pub(super) multi_buffer: bool,
    /// The kernel says when it wants to be called; otherwise it is called for every batch.
    pub(super) need_wakeup: bool,
}

/// What became of a frame that was to be sent.
enum Placed {
    /// In the ring.
    Yes,
    /// The ring has no room: here it is again.
    Full(Frame),
    /// It can never be sent: counted, and back in the pool.
    Never,
}

impl Tx {
    pub(super) fn new(
        socket: &Arc<QueueSocket>,
        tx: Producer<Mapped<Descriptor, Mapping>>,
        completion: Consumer<Mapped<u64, Mapping>>,
        owner: Owner,
        modes: Modes,
        mtu: &Mtu,
    ) -> Tx {
        Tx {
            socket: Arc::clone(socket),
            tx,
            completion,
            owner: Some(owner),
            modes,
            waiting: false,
            mtu: mtu.clone(),
            longest: 0,
            counters: Arc::default(),
            invalid_seen: 0,
            hostile: 0,
        }
    }

    /// Descriptors that may be written now: room in the tx ring, and room for every frame on its way in the
    /// completion ring, so that the kernel never waits for us.
    fn room(&mut self, want: u32) -> u32 {
        let in_flight = self.owner.as_ref().map_or(u32::MAX, Owner::lent);
        self.tx
            .free(want)
            .min(self.completion.size().saturating_sub(in_flight))
    }

    /// Takes the frames that have been sent back to the pool.
    fn collect(&mut self, cache: &mut Cache) {
        let Some(owner) = &mut self.owner else { return };
        self.completion.available(u32::MAX);
        while let Some(address) = self.completion.pop() {
            match owner.reclaim(address, 0) {
                Some(frame) => cache.give(frame),
                None => self.counters.invalid_descriptor.add(1),
            }
        }
        self.completion.release();
    }

    fn place(&mut self, frame: Frame, room: &mut u32, cache: &mut Cache) -> Placed {
        if frame.len() < ETHERNET_HEADER {
            self.counters.handler_invalid.add(1);
            cache.give(frame);
            return Placed::Never;
        }
        if frame.len() > self.longest {
            self.counters.too_long.add(1);
            cache.give(frame);
            return Placed::Never;
        }
        if *room == 0 {
            return Placed::Full(frame);
        }
        let Some(owner) = &mut self.owner else {
            return Placed::Full(frame);
        };
        let len = frame.len();
        match owner.lend(frame) {
            Ok(addr) => {
                self.tx.push(Descriptor {
                    addr,
                    len,
                    options: 0,
                });
                *room -= 1;
                Placed::Yes
            }
            Err(jumbo) => self.split(jumbo, room, cache),
        }
    }

    /// Copies a jumbo frame into as many chunks as it needs, one descriptor each.
    #[cold]
    fn split(&mut self, jumbo: Frame, room: &mut u32, cache: &mut Cache) -> Placed {
        let chunk = (cache.umem().frame_size() - HEADROOM) as usize;
        let count = (jumbo.len() as usize).div_ceil(chunk);
        let longest = if self.modes.multi_buffer { PIECES_MAX } else { 1 };
        if count > longest {
            self.counters.too_long.add(1);
            cache.give(jumbo);
            return Placed::Never;
        }
        if (count as u32) > *room {
            return Placed::Full(jumbo);
        }
        // All chunks first: a frame must not end in the middle of the ring.
        let mut pieces: [Option<Frame>; PIECES_MAX] = [const { None }; PIECES_MAX];
        for (at, slot) in pieces.iter_mut().enumerate().take(count) {
            let start = at * chunk;
            let end = (start + chunk).min(jumbo.len() as usize);
            let Some(mut piece) = cache.take() else { break };
            cache.append(&mut piece, &cache.bytes(&jumbo)[start..end]);
            *slot = Some(piece);
        }
        cache.give(jumbo);
        let whole = pieces[..count].iter().all(Option::is_some);
        if !whole {
            self.counters.no_frames.add(1);
        }
        for (at, piece) in pieces.into_iter().flatten().enumerate() {
            let len = piece.len();
            match (&mut self.owner, whole) {
                (Some(owner), true) => {
                    let options = if at + 1 < count { CONTINUED } else { 0 };
                    match owner.lend(piece) {
                        Ok(addr) => {
                            self.tx.push(Descriptor { addr, len, options });
                            *room -= 1;
                        }
                        Err(piece) => cache.give(piece),
                    }
                }
                (_, _) => cache.give(piece),
            }
        }
        if whole { Placed::Yes } else { Placed::Never }
    }

    /// Makes what was placed visible, and wakes the kernel for as long as it asks for it and gets on.
    fn ring_doorbell(&mut self) {
        self.tx.publish();
        let mut left = self.tx.outstanding();
        while left > 0 && (!self.modes.need_wakeup || self.tx.flags() & NEED_WAKEUP != 0) {
            let woke = self.socket.xsk().wake_tx();
            self.socket.note(woke);
            let before = std::mem::replace(&mut left, self.tx.outstanding());
            // In copy mode a call sends some frames and says EAGAIN or EBUSY while there are more; no
            // progress means that the device or the socket's send buffer is full.
            if left == before || woke.is_ok() {
                break;
            }
        }
        self.waiting = left > 0;
    }
}

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let (mut frames, mut bytes) = (0u64, 0u64);
        let in_flight = self.owner.as_ref().map_or(0, Owner::lent);
        if in_flight > self.completion.size() / COLLECT_AT || (in_flight > 0 && batch.is_empty()) {
            self.collect(batch.cache_mut());
        }
        self.longest = self.mtu.get().saturating_add(ETHERNET_HEADER + TAGS);
        let mut room = self.room(batch.len() as u32);
        let mut tried = false;
        while let Some(mut frame) = batch.next_send() {
            loop {
                let len = frame.len();
                match self.place(frame, &mut room, batch.cache_mut()) {
                    Placed::Yes => {
                        frames += 1;
                        bytes += u64::from(len);
                    }
                    Placed::Never => {}
                    Placed::Full(again) if !tried => {
                        tried = true;
                        self.ring_doorbell();
                        self.collect(batch.cache_mut());
                        room = self.room(batch.len() as u32);
                        frame = again;
                        continue;
                    }
                    Placed::Full(lost) => {
                        self.counters.ring_full.add(1);
                        batch.cache_mut().give(lost);
                    }
                }
                break;
            }
        }
        self.ring_doorbell();
        self.counters.sent.add(frames);
        self.counters.sent_bytes.add(bytes);
        frames as usize
    }

    /// Also when the kernel began to sleep after its flag was read: the next call finds the flag.
    fn is_waiting(&self) -> bool {
        self.waiting
    }

    fn mtu(&self) -> Option<&Mtu> {
        Some(&self.mtu)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Tx {
    fn count_losses(&mut self) {
        if let Ok(now) = self.socket.statistics() {
            self.counters
                .invalid_descriptor
                .add(now.tx_invalid_descs.wrapping_sub(self.invalid_seen));
            self.invalid_seen = now.tx_invalid_descs;
        }
        let hostile = self.tx.hostile() + self.completion.hostile();
        self.counters.invalid_descriptor.add(hostile - self.hostile);
        self.hostile = hostile;
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.count_losses();
        if let Some(owner) = self.owner.take() {
            self.socket.adopt(owner);
        }
    }
}
