//! The device's half of a packed virtqueue (VIRTIO 1.2, section 2.8).

use std::sync::atomic::Ordering;

use super::packed_driver::event_passed;
use super::place::{full_fence, word};
use super::split_device::indirect;
use super::{
    AVAIL, Broken, DESCRIPTOR, DeviceRing, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, Head, INDIRECT, NEXT,
    Options, PIECES_MAX, Piece, Places, USED, WRITE, Window,
};

/// The device's half of a packed virtqueue.
#[derive(Debug)]
pub struct PackedDevice {
    places: Places,
    options: Options,
    /// The next slot to take, and the wrap counter that an available descriptor there has.
    next: u16,
    wrap: bool,
    /// The next slot to write a used buffer into, and the wrap counter that it gets.
    used: u16,
    used_wrap: bool,
    /// A used buffer that is not shown yet: the first since the last publish.
    hidden: Option<(u16, u16)>,
    /// In order and nothing written: the last used buffer, which stands for all since the last publish. Its slot is
    /// that of the first of them.
    batch: Option<Batched>,
    /// Slots used since the driver was last notified.
    unnotified: u16,
}

/// Used buffers that are told by one descriptor.
#[derive(Clone, Copy, Debug)]
struct Batched {
    slot: u16,
    flags: u16,
    id: u16,
}

impl PackedDevice {
    /// A ring that goes on where `base` says, as VHOST_USER_SET_VRING_BASE has it: next slot and wrap counter of the
    /// available descriptors in the lower half, of the used ones in the upper. `None` when a slot is beyond the ring.
    #[must_use]
    pub fn new(places: Places, options: Options, base: u32) -> Option<PackedDevice> {
        let next = (base & 0x7fff) as u16;
        // A driver that gives no upper half means the same place: nothing was under way.
        let used = if base >> 16 == 0 {
            base & 0xffff
        } else {
            base >> 16
        };
        let used_slot = (used & 0x7fff) as u16;
        if next >= places.size() || used_slot >= places.size() {
            return None;
        }
        let mut this = PackedDevice {
            places,
            options,
            next,
            wrap: base & 0x8000 != 0,
            used: used_slot,
            used_wrap: used & 0x8000 != 0,
            hidden: None,
            batch: None,
            unnotified: 0,
        };
        this.disable_kicks();
        Some(this)
    }

    #[inline]
    fn flags(&self, slot: u16) -> &std::sync::atomic::AtomicU16 {
        debug_assert!(slot < self.places.size);
        // SAFETY: `slot` is a cursor of this half, or comes from stepping one, below the size.
        unsafe { word(self.places.desc.add(usize::from(slot) * DESCRIPTOR + 14)) }
    }

    /// Address, length and id of a slot, each copied once.
    #[inline]
    fn body(&self, slot: u16) -> (u64, u32, u16) {
        debug_assert!(slot < self.places.size);
        // SAFETY: as in `flags`; 16 bytes a descriptor.
        unsafe {
            let at = self.places.desc.add(usize::from(slot) * DESCRIPTOR);
            (
                at.cast::<u64>().read_volatile(),
                at.add(8).cast::<u32>().read_volatile(),
                at.add(12).cast::<u16>().read_volatile(),
            )
        }
    }

    #[inline]
    fn step(&self, slot: u16, wrap: bool) -> (u16, bool) {
        if slot + 1 == self.places.size {
            (0, !wrap)
        } else {
            (slot + 1, wrap)
        }
    }

    /// Steps over the rest of a chain: the last descriptor's id, and how many slots it takes.
    #[cold]
    fn rest_of_chain(&self, first: u16) -> Result<(u16, u16), Broken> {
        let (mut slot, mut count) = (first, 1);
        loop {
            slot = self.step(slot, false).0;
            count += 1;
            if count > self.places.size {
                return Err(Broken);
            }
            let (_, _, id) = self.body(slot);
            // All but the first are as they were when the first was shown.
            if self.flags(slot).load(Ordering::Relaxed) & NEXT == 0 {
                return Ok((id, count));
            }
        }
    }

    /// Writes the descriptor that stands for the used buffers of a batch.
    #[inline]
    fn tell_batch(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.write_used(batch.slot, batch.id, 0);
            self.flags(batch.slot).store(batch.flags, Ordering::Release);
        }
    }

    fn write_used(&self, slot: u16, id: u16, len: u32) {
        debug_assert!(slot < self.places.size);
        // SAFETY: a cursor below the size.
        unsafe {
            let at = self.places.desc.add(usize::from(slot) * DESCRIPTOR);
            at.add(8).cast::<u32>().write_volatile(len);
            at.add(12).cast::<u16>().write_volatile(id);
        }
    }
}

impl DeviceRing for PackedDevice {
    fn size(&self) -> u16 {
        self.places.size
    }

    fn is_packed(&self) -> bool {
        true
    }

    #[inline]
    fn look(&mut self, out: &mut [Head]) -> Result<usize, Broken> {
        let (mut slot, mut wrap) = (self.next, self.wrap);
        let mut taken = 0u32;
        for (count, head) in out.iter_mut().enumerate() {
            let flags = self.flags(slot).load(Ordering::Acquire);
            // Available: the driver's bit is this lap's, the device's is not.
            if (flags & AVAIL != 0) != wrap || (flags & USED != 0) == wrap {
                return Ok(count);
            }
            let (addr, len, id) = self.body(slot);
            *head = Head {
                addr,
                len,
                flags: flags & (NEXT | WRITE | INDIRECT),
                id,
                slot,
                slots: 1,
            };
            if flags & NEXT != 0 {
                (head.id, head.slots) = self.rest_of_chain(slot)?;
            }
            taken += u32::from(head.slots);
            if taken > u32::from(self.places.size) {
                return Ok(count);
            }
            let after = u32::from(slot) + u32::from(head.slots);
            if after >= u32::from(self.places.size) {
                slot = (after - u32::from(self.places.size)) as u16;
                wrap = !wrap;
            } else {
                slot = after as u16;
            }
        }
        Ok(out.len())
    }

    fn pieces(&self, head: &Head, memory: &mut Window, out: &mut [Piece; PIECES_MAX]) -> Option<usize> {
        if head.flags & INDIRECT != 0 {
            return (head.flags & NEXT == 0)
                .then(|| indirect(memory, head.addr, head.len, false, out))
                .flatten();
        }
        if usize::from(head.slots) > PIECES_MAX {
            return None;
        }
        out[0] = Piece {
            addr: head.addr,
            len: head.len,
            write: head.flags & WRITE != 0,
        };
        let mut slot = head.slot;
        for piece in &mut out[1..usize::from(head.slots)] {
            slot = self.step(slot, false).0;
            let flags = self.flags(slot).load(Ordering::Relaxed);
            if flags & INDIRECT != 0 {
                return None;
            }
            let (addr, len, _) = self.body(slot);
            *piece = Piece {
                addr,
                len,
                write: flags & WRITE != 0,
            };
        }
        Some(usize::from(head.slots))
    }

    #[inline]
    fn complete(&mut self, head: &Head, len: u32) {
        let flags = if self.used_wrap { AVAIL | USED } else { 0 } | if len > 0 { WRITE } else { 0 };
        if self.options.in_order && len == 0 && head.is_read_only() {
            // Section 2.8.9: one used descriptor, in the slot of the batch's first, with the id of its last.
            match &mut self.batch {
                Some(batch) => batch.id = head.id,
                None => {
                    self.batch = Some(Batched {
                        slot: self.used,
                        flags,
                        id: head.id,
                    });
                }
            }
        } else {
            self.tell_batch();
            self.write_used(self.used, head.id, len);
            if self.hidden.is_none() {
                self.hidden = Some((self.used, flags));
            } else {
                self.flags(self.used).store(flags, Ordering::Release);
            }
        }
        self.unnotified = self.unnotified.saturating_add(head.slots);
        let size = u32::from(self.places.size);
        let after = |slot: u16, wrap: bool| {
            let after = u32::from(slot) + u32::from(head.slots);
            if after >= size {
                ((after - size) as u16, !wrap)
            } else {
                (after as u16, wrap)
            }
        };
        (self.next, self.wrap) = after(self.next, self.wrap);
        (self.used, self.used_wrap) = after(self.used, self.used_wrap);
    }

    #[inline]
    fn publish(&mut self) {
        self.tell_batch();
        if let Some((slot, flags)) = self.hidden.take() {
            self.flags(slot).store(flags, Ordering::Release);
        }
    }

    #[inline]
    fn wants_call(&mut self) -> bool {
        let count = std::mem::take(&mut self.unnotified);
        if count == 0 {
            return false;
        }
        full_fence();
        // SAFETY: the driver's event: off_wrap, flags.
        let (off_wrap, flags) = unsafe { (word(self.places.driver), word(self.places.driver.add(2))) };
        match flags.load(Ordering::Relaxed) & 3 {
            EVENT_DISABLE => false,
            EVENT_DESC if self.options.event_idx => event_passed(
                off_wrap.load(Ordering::Relaxed),
                self.used,
                self.used_wrap,
                count,
                self.places.size,
            ),
            _ => true,
        }
    }

    fn enable_kicks(&mut self) -> bool {
        // SAFETY: the device's event: off_wrap, flags.
        let (off_wrap, flags) = unsafe { (word(self.places.device), word(self.places.device.add(2))) };
        if self.options.event_idx {
            off_wrap.store(self.next | u16::from(self.wrap) << 15, Ordering::Relaxed);
            flags.store(EVENT_DESC, Ordering::Release);
        } else {
            flags.store(EVENT_ENABLE, Ordering::Relaxed);
        }
        full_fence();
        let flags = self.flags(self.next).load(Ordering::Acquire);
        (flags & AVAIL != 0) != self.wrap || (flags & USED != 0) == self.wrap
    }

    fn disable_kicks(&mut self) {
        // SAFETY: the flags of the device's event.
        unsafe { word(self.places.device.add(2)) }.store(EVENT_DISABLE, Ordering::Relaxed);
    }

    fn base(&self) -> u32 {
        let half = |slot: u16, wrap: bool| u32::from(slot) | u32::from(wrap) << 15;
        half(self.next, self.wrap) | half(self.used, self.used_wrap) << 16
    }
}
