//! Sending: frames copied once into buffers of the driver's receive ring.

use std::sync::Arc;

use crate::device::{Counters, TxQueue};
use crate::frame::Batch;
use crate::ring::virtio::{
    Broken, DeviceRing, Head, INDIRECT, NET_HEADER, NEXT, NUM_BUFFERS_AT, PIECES_MAX, Piece, WRITE, Window,
    copy_out, prefetch_write,
};

use crate::vhost_user::Service;

use super::queue::{AnyRing, Queue};

/// Buffers looked at together: where the packets go is fetched side by side.
const TOGETHER: usize = 32;

/// Most buffers that one packet is merged from: a jumbo frame in buffers of 1,500 bytes, with room.
const MERGED_MAX: usize = 64;

/// The header before a packet in one buffer (section 5.1.6): nothing left to the driver.
const HEADER: [u8; NET_HEADER as usize] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The sending half of a queue: the driver's receive ring.
pub(super) struct Tx {
    index: usize,
    /// The driver's receive rings, of all pairs.
    queues: Arc<[Arc<Queue>]>,
    /// The connection lasts as long as a half of a queue does.
    _service: Arc<Service>,
    counters: Arc<Counters>,
}

impl Tx {
    pub(super) fn new(index: usize, queues: &Arc<[Arc<Queue>]>, service: &Arc<Service>) -> Tx {
        Tx {
            index,
            queues: Arc::clone(queues),
            _service: Arc::clone(service),
            counters: Arc::default(),
        }
    }

    /// The ring to send by: this pair's own; where the driver has not enabled that (a guest uses as
    /// many pairs as it has processors), one of the pairs that it has, the same one each time.
    #[inline]
    fn queue(&self) -> &Arc<Queue> {
        let own = &self.queues[self.index];
        if own.runs() { own } else { self.instead() }
    }

    #[cold]
    fn instead(&self) -> &Arc<Queue> {
        // A driver enables pairs from the first on.
        let running = self.queues.iter().take_while(|queue| queue.runs()).count();
        &self.queues[self.index.checked_rem(running).unwrap_or(self.index)]
    }
}

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        if !batch.has_sends() {
            return 0;
        }
        let queue = Arc::clone(self.queue());
        let mut live = queue.lock();
        let Some(live) = live.as_mut().filter(|live| !live.broken) else {
            let (frames, _) = batch.discard_sends();
            self.counters.ring_full.add(frames as u64);
            return 0;
        };
        let mut counts = Counts::default();
        let merges = live.merges;
        match &mut live.ring {
            AnyRing::Split(ring) => send(ring, &mut live.window, batch, merges, &mut counts),
            AnyRing::Packed(ring) => send(ring, &mut live.window, batch, merges, &mut counts),
        }
        let ring = live.ring.as_dyn();
        if ring.wants_call()
            && let Some(call) = &live.call
        {
            call.raise();
        }
        batch.discard_sends();
        self.counters.sent.add(counts.frames);
        self.counters.sent_bytes.add(counts.bytes);
        if counts.full + counts.invalid + counts.too_long > 0 {
            self.counters.ring_full.add(counts.full);
            self.counters.invalid_descriptor.add(counts.invalid);
            self.counters.too_long.add(counts.too_long);
        }
        if counts.broken || live.memory.is_lost() {
            live.broken = true;
            queue.trouble.raise();
        }
        counts.frames as usize
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

#[derive(Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    full: u64,
    invalid: u64,
    too_long: u64,
    broken: bool,
}

/// Copies the frames of the batch that are to be sent into what is available. `merges`: the driver takes packets that
/// lie in several buffers.
#[inline]
fn send<R: DeviceRing>(ring: &mut R, window: &mut Window, batch: &Batch, merges: bool, counts: &mut Counts) {
    let mut heads = Heads::default();
    let mut left = batch.left();
    batch.each_send(|bytes| {
        let placed = heads.next(ring, window, left).and_then(|next| match next {
            Some((head, place)) if !place.is_null() && bytes.len() <= (head.len - NET_HEADER) as usize => {
                // SAFETY: `place` has `head.len` writable bytes, of which these take at most that many.
                unsafe {
                    copy_out(bytes, place.add(NET_HEADER as usize));
                    copy_out(&HEADER, place);
                }
                ring.complete(&head, NET_HEADER + bytes.len() as u32);
                heads.at += 1;
                Ok(true)
            }
            Some(_) => {
                let placed = scatter(ring, window, bytes, merges, counts);
                heads.forget();
                placed
            }
            None => {
                counts.full += 1;
                Ok(false)
            }
        });
        left = left.saturating_sub(1);
        match placed {
            Ok(true) => {
                counts.frames += 1;
                counts.bytes += bytes.len() as u64;
            }
            Ok(false) => {}
            Err(Broken) => {
                counts.broken = true;
                counts.invalid += 1;
            }
        }
    });
    ring.publish();
}

/// Heads that were looked at and not used yet, with the places of those that are one writable piece.
struct Heads {
    heads: [Head; TOGETHER],
    places: [*mut u8; TOGETHER],
    at: usize,
    count: usize,
    /// Looked at, and there were no more.
    dry: bool,
}

impl Default for Heads {
    fn default() -> Heads {
        Heads {
            heads: [Head::default(); TOGETHER],
            places: [std::ptr::null_mut(); TOGETHER],
            at: 0,
            count: 0,
            dry: false,
        }
    }
}

impl Heads {
    #[inline(always)]
    fn next<R: DeviceRing>(
        &mut self,
        ring: &mut R,
        window: &mut Window,
        want: usize,
    ) -> Result<Option<(Head, *mut u8)>, Broken> {
        if self.at == self.count {
            if self.dry {
                return Ok(None);
            }
            self.fetch(ring, window, want)?;
            if self.count == 0 {
                return Ok(None);
            }
        }
        Ok(Some((
            self.heads[self.at % TOGETHER],
            self.places[self.at % TOGETHER],
        )))
    }

    #[inline]
    fn fetch<R: DeviceRing>(&mut self, ring: &mut R, window: &mut Window, want: usize) -> Result<(), Broken> {
        let want = want.clamp(1, TOGETHER);
        (self.at, self.count) = (0, 0);
        self.count = ring.look(&mut self.heads[..want])?;
        self.dry = self.count < want;
        for (head, place) in self.heads[..self.count].iter().zip(&mut self.places) {
            let simple = head.flags & (NEXT | INDIRECT | WRITE) == WRITE && head.len >= NET_HEADER;
            *place = if simple {
                window.at(head.addr, head.len).unwrap_or(std::ptr::null_mut())
            } else {
                std::ptr::null_mut()
            };
            prefetch_write(*place);
            prefetch_write(place.wrapping_add(64));
        }
        Ok(())
    }

    /// Somebody else used some of them: look anew.
    fn forget(&mut self) {
        (self.at, self.count, self.dry) = (0, 0, false);
    }
}

impl Default for Room {
    fn default() -> Room {
        Room {
            place: std::ptr::null_mut(),
            len: 0,
        }
    }
}

/// A writable piece, found in memory.
#[derive(Clone, Copy)]
struct Room {
    place: *mut u8,
    len: usize,
}

/// Copies a packet into as many buffers as it takes, each of any pieces; into one for a driver that does not merge.
/// False when it was lost, and counted.
#[cold]
fn scatter<R: DeviceRing>(
    ring: &mut R,
    window: &mut Window,
    bytes: &[u8],
    merges: bool,
    counts: &mut Counts,
) -> Result<bool, Broken> {
    let mut heads = [Head::default(); MERGED_MAX];
    // Section 5.1.6.4: without MRG_RXBUF every packet takes one buffer, and to such a driver the second would be a packet
    // of its own.
    let most = if merges { MERGED_MAX } else { 1 };
    let there = ring.look(&mut heads[..most])?;
    let need = bytes.len() + NET_HEADER as usize;
    let mut used = [0u32; MERGED_MAX];
    let mut places = [Room::default(); PIECES_MAX * 2];
    let (mut pieces, mut room, mut buffers) = (0, 0, 0);
    // Slots of the ring that the buffers take, and the smallest.
    let (mut slots, mut smallest) = (0, 1);
    while room < need {
        let Some(head) = heads[..there].get(buffers) else {
            // Where no buffer more has room in the ring, none comes, however long the driver is waited for.
            if there == most || slots + smallest > usize::from(ring.size()) {
                counts.too_long += 1;
            } else {
                counts.full += 1;
            }
            return Ok(false);
        };
        match writable(ring, window, head, &mut places[pieces..]) {
            Some((count, len)) if buffers > 0 || len >= NET_HEADER as usize => {
                pieces += count;
                // A table takes one slot, a chain one for each piece.
                let takes = if head.flags & INDIRECT == 0 { count } else { 1 };
                smallest = if buffers == 0 { takes } else { smallest.min(takes) };
                slots += takes;
                used[buffers] = len.min(need - room) as u32;
                room += len;
                buffers += 1;
            }
            _ => {
                // The first that cannot be is given back unused; a packet that was to go on in it is lost.
                counts.invalid += 1;
                if buffers == 0 {
                    ring.complete(head, 0);
                }
                return Ok(false);
            }
        }
    }
    let mut header = HEADER;
    header[NUM_BUFFERS_AT..].copy_from_slice(&(buffers as u16).to_le_bytes());
    let parts = [&header[..], bytes];
    let (mut part, mut from) = (0, 0);
    for piece in &places[..pieces] {
        let mut filled = 0;
        while filled < piece.len && part < parts.len() {
            let count = (piece.len - filled).min(parts[part].len() - from);
            // SAFETY: within the piece, which was found writable for its length.
            unsafe { copy_out(&parts[part][from..from + count], piece.place.add(filled)) };
            filled += count;
            from += count;
            if from == parts[part].len() {
                (part, from) = (part + 1, 0);
            }
        }
    }
    for (head, &len) in heads[..buffers].iter().zip(&used) {
        ring.complete(head, len);
    }
    Ok(true)
}

/// The pieces of a buffer, all writable and in memory: how many, and their bytes.
fn writable<R: DeviceRing>(
    ring: &R,
    window: &mut Window,
    head: &Head,
    out: &mut [Room],
) -> Option<(usize, usize)> {
    let mut pieces = [Piece::default(); PIECES_MAX];
    let count = ring.pieces(head, window, &mut pieces)?;
    if count > out.len() {
        return None;
    }
    let mut total = 0;
    for (piece, out) in pieces[..count].iter().zip(out) {
        if !piece.write {
            return None;
        }
        *out = Room {
            place: window.at(piece.addr, piece.len)?,
            len: piece.len as usize,
        };
        total += out.len;
    }
    Some((count, total))
}
