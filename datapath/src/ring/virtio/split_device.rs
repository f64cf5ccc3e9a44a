//! The device's half of a split virtqueue (VIRTIO 1.2, section 2.7).

use std::sync::atomic::Ordering;

use super::copy::prefetch_write;
use super::place::{full_fence, read_pair, word};
use super::{
    Broken, DESCRIPTOR, DeviceRing, Head, INDIRECT, NEXT, NO_NOTIFY, Options, PIECES_MAX, Piece, Places,
    WRITE, Window, passes,
};

/// The device's half of a split virtqueue.
#[derive(Debug)]
pub struct SplitDevice {
    places: Places,
    options: Options,
    mask: u16,
    /// The next slot of the available ring, and the driver's index when last looked at.
    next: u16,
    seen: u16,
    /// The next slot of the used ring; what the driver may see; what it was when it was last notified.
    used: u16,
    published: u16,
    notified: u16,
    /// In order: the last of the buffers used without a length since `published`, which one entry will stand for
    /// (section 2.7.9).
    batch: Option<Batched>,
}

/// Buffers that one used entry stands for.
#[derive(Clone, Copy, Debug)]
struct Batched {
    /// Where the entry goes: the slot of the first of them.
    slot: u16,
    /// The last of them.
    id: u16,
}

impl SplitDevice {
    /// A ring that goes on at index `base` (what another device before this one gave), the used ring where the driver's
    /// memory says it is.
    #[must_use]
    pub fn new(places: Places, options: Options, base: u16) -> SplitDevice {
        // SAFETY: the second word of the used ring. Where used entries go is the device's own to say; it was written by
        // a device before this one, and a wrong value harms the driver alone.
        let used = unsafe { word(places.device.add(2)) }.load(Ordering::Acquire);
        let mut this = SplitDevice {
            mask: places.size() - 1,
            places,
            options,
            next: base,
            seen: base,
            used,
            published: used,
            notified: used,
            batch: None,
        };
        this.disable_kicks();
        this
    }

    #[inline]
    fn refresh(&mut self) -> Result<u16, Broken> {
        // SAFETY: the second word of the available ring.
        let seen = unsafe { word(self.places.driver.add(2)) }.load(Ordering::Acquire);
        let ahead = seen.wrapping_sub(self.next);
        if ahead > self.places.size {
            return Err(Broken);
        }
        self.seen = seen;
        Ok(ahead)
    }

    /// A descriptor, copied once: address, length, flags, next.
    #[inline]
    fn descriptor(&self, at: u16) -> (u64, u32, u16, u16) {
        // SAFETY: masked, so below the size that the places were promised for.
        let (addr, rest) =
            unsafe { read_pair(self.places.desc.add(usize::from(at & self.mask) * DESCRIPTOR)) };
        split(addr, rest)
    }

    /// Writes the entry `slot` of the used ring.
    #[inline]
    fn write_used(&self, slot: u16, id: u16, len: u32) {
        // SAFETY: masked; the slots of the used ring begin at byte 4 and have 8 bytes. The place is aligned to 4, so the
        // two halves are written apart.
        unsafe {
            let at = self.used_slot(slot).cast::<u32>();
            at.write_volatile(u32::from(id));
            at.add(1).write_volatile(len);
        }
    }

    #[inline]
    fn used_slot(&self, slot: u16) -> *mut u8 {
        self.places
            .device
            .wrapping_add(4 + 8 * usize::from(slot & self.mask))
    }

    /// Asks for the lines of the used ring that `count` buffers like `head` will be told by: the driver has them, having
    /// read what stood there a lap before.
    #[inline]
    fn prefetch_used(&self, head: &Head, count: usize) {
        let entries = if self.options.in_order && head.is_read_only() {
            1
        } else {
            count
        };
        for ahead in (0..entries).step_by(64 / 8) {
            prefetch_write(self.used_slot(self.used.wrapping_add(ahead as u16)));
        }
    }

    #[inline]
    fn tell_batch(&mut self) {
        if let Some(Batched { slot, id }) = self.batch.take() {
            self.write_used(slot, id, 0);
        }
    }

    fn avail_event(&self) -> &std::sync::atomic::AtomicU16 {
        // SAFETY: the last word of the used ring's 6 + 8 * size bytes.
        unsafe { word(self.places.device.add(4 + 8 * usize::from(self.places.size))) }
    }
}

#[inline]
pub(super) fn split(addr: u64, rest: u64) -> (u64, u32, u16, u16) {
    (addr, rest as u32, (rest >> 32) as u16, (rest >> 48) as u16)
}

/// The pieces of an indirect table of `len` bytes at `addr`: chained as the split layout has them, with flags and next
/// (section 2.7.5.3); or in order as the packed one has them, with an id and then the flags (section 2.8.7: the id means
/// nothing there, nor does any flag but WRITE).
pub(super) fn indirect(
    memory: &mut Window,
    addr: u64,
    len: u32,
    chained: bool,
    out: &mut [Piece; PIECES_MAX],
) -> Option<usize> {
    let entries = len as usize / DESCRIPTOR;
    if entries == 0 || !(len as usize).is_multiple_of(DESCRIPTOR) || !addr.is_multiple_of(8) {
        return None;
    }
    let table = memory.at(addr, len)?;
    if !(table as usize).is_multiple_of(8) {
        return None;
    }
    let mut at = 0;
    for (count, piece) in out.iter_mut().enumerate() {
        // SAFETY: `at` is below `entries`, so within the `len` mapped bytes; aligned as checked.
        let (addr, rest) = unsafe { read_pair(table.add(at * DESCRIPTOR)) };
        let (addr, len, third, fourth) = split(addr, rest);
        let flags = if chained { third } else { fourth & WRITE };
        if flags & INDIRECT != 0 {
            return None;
        }
        *piece = Piece {
            addr,
            len,
            write: flags & WRITE != 0,
        };
        if chained {
            if flags & NEXT == 0 {
                return Some(count + 1);
            }
            at = usize::from(fourth);
        } else {
            at += 1;
            if at == entries {
                return Some(count + 1);
            }
        }
        if at >= entries {
            return None;
        }
    }
    None
}

impl DeviceRing for SplitDevice {
    fn size(&self) -> u16 {
        self.places.size
    }

    fn is_packed(&self) -> bool {
        false
    }

    #[inline]
    fn look(&mut self, out: &mut [Head]) -> Result<usize, Broken> {
        let mut there = self.seen.wrapping_sub(self.next);
        if usize::from(there) < out.len() {
            there = self.refresh()?;
        }
        let count = out.len().min(usize::from(there));
        for (slot, head) in out[..count].iter_mut().enumerate() {
            let at = self.next.wrapping_add(slot as u16) & self.mask;
            // SAFETY: masked; the slots of the available ring begin at byte 4. Copied once.
            let id = unsafe { word(self.places.driver.add(4 + 2 * usize::from(at))) }.load(Ordering::Relaxed);
            head.id = id;
        }
        // In a loop of its own, so that the descriptors are fetched side by side.
        for head in &mut out[..count] {
            if head.id > self.mask {
                return Err(Broken);
            }
            let (addr, len, flags, next) = self.descriptor(head.id);
            *head = Head {
                addr,
                len,
                flags,
                id: head.id,
                slot: next,
                slots: 1,
            };
        }
        if let Some(first) = out[..count].first() {
            self.prefetch_used(first, count);
        }
        Ok(count)
    }

    fn pieces(&self, head: &Head, memory: &mut Window, out: &mut [Piece; PIECES_MAX]) -> Option<usize> {
        if head.flags & INDIRECT != 0 {
            // Section 2.7.5.3.1: not both.
            return (head.flags & NEXT == 0)
                .then(|| indirect(memory, head.addr, head.len, true, out))
                .flatten();
        }
        let (mut addr, mut len, mut flags, mut next) = (head.addr, head.len, head.flags, head.slot);
        for (count, piece) in out.iter_mut().enumerate() {
            if flags & INDIRECT != 0 {
                return None;
            }
            *piece = Piece {
                addr,
                len,
                write: flags & WRITE != 0,
            };
            if flags & NEXT == 0 {
                return Some(count + 1);
            }
            if next > self.mask {
                return None;
            }
            (addr, len, flags, next) = self.descriptor(next);
        }
        None
    }

    #[inline]
    fn complete(&mut self, head: &Head, len: u32) {
        self.next = self.next.wrapping_add(1);
        if self.options.in_order && len == 0 && head.is_read_only() {
            let slot = self.batch.map_or(self.used, |batch| batch.slot);
            self.batch = Some(Batched { slot, id: head.id });
        } else {
            self.tell_batch();
            self.write_used(self.used, head.id, len);
        }
        self.used = self.used.wrapping_add(1);
    }

    #[inline]
    fn publish(&mut self) {
        self.tell_batch();
        if self.used != self.published {
            // SAFETY: the second word of the used ring.
            unsafe { word(self.places.device.add(2)) }.store(self.used, Ordering::Release);
            self.published = self.used;
        }
    }

    #[inline]
    fn wants_call(&mut self) -> bool {
        if self.published == self.notified {
            return false;
        }
        full_fence();
        let old = std::mem::replace(&mut self.notified, self.published);
        if self.options.event_idx {
            // SAFETY: the last word of the available ring's 6 + 2 * size bytes: used_event.
            let event = unsafe { word(self.places.driver.add(4 + 2 * usize::from(self.places.size))) };
            passes(event.load(Ordering::Relaxed), self.published, old)
        } else {
            // SAFETY: the first word of the available ring.
            unsafe { word(self.places.driver) }.load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    fn enable_kicks(&mut self) -> bool {
        if self.options.event_idx {
            self.avail_event().store(self.next, Ordering::Relaxed);
        } else {
            // SAFETY: the first word of the used ring.
            unsafe { word(self.places.device) }.store(0, Ordering::Relaxed);
        }
        full_fence();
        // SAFETY: the second word of the available ring.
        unsafe { word(self.places.driver.add(2)) }.load(Ordering::Acquire) == self.next
    }

    fn disable_kicks(&mut self) {
        if self.options.event_idx {
            self.avail_event()
                .store(self.next.wrapping_sub(1), Ordering::Relaxed);
        } else {
            // SAFETY: the first word of the used ring.
            unsafe { word(self.places.device) }.store(NO_NOTIFY, Ordering::Relaxed);
        }
    }

    fn base(&self) -> u32 {
        u32::from(self.next)
    }
}
