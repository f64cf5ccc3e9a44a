//! The driver's half of a packed virtqueue (VIRTIO 1.2, section 2.8).

use std::sync::atomic::Ordering;

use super::place::{full_fence, word};
use super::{
    AVAIL, DESCRIPTOR, DriverRing, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, Options, Places, USED, Used,
};

/// The driver's half of a packed virtqueue. Its buffers take one slot each.
#[derive(Debug)]
pub struct PackedDriver {
    places: Places,
    options: Options,
    /// Ids that the device does not hold, first in first out.
    free: Box<[u16]>,
    free_head: u16,
    free_count: u16,
    /// The next slot to fill, with the driver's wrap counter as flags.
    next: u16,
    avail_flags: u16,
    /// Slots filled and not shown yet: the first of them, and the flags that show it.
    hidden: Option<(u16, u16)>,
    /// Buffers published since the device was last notified.
    unnotified: u16,
    /// The next slot in which a used buffer appears, and the wrap counter that it then has.
    used: u16,
    used_wrap: bool,
    /// Buffers that the device has: added less popped.
    out: u16,
    /// In order: the buffer that ends the batch being given out, while there is one.
    batch: Option<Used>,
    hostile: u64,
}

impl PackedDriver {
    /// An empty ring. The places are cleared: the device has not been told of them yet.
    #[must_use]
    pub fn new(places: Places, options: Options) -> PackedDriver {
        let size = places.size();
        let (desc, driver, device) = Places::lengths(size, true);
        // SAFETY: `Places::new` was promised these lengths; nobody else has the ring yet.
        unsafe {
            places.desc.write_bytes(0, desc);
            places.driver.write_bytes(0, driver);
            places.device.write_bytes(0, device);
        }
        let mut this = PackedDriver {
            places,
            options,
            free: (0..size).collect(),
            free_head: 0,
            free_count: size,
            next: 0,
            avail_flags: AVAIL,
            hidden: None,
            unnotified: 0,
            used: 0,
            used_wrap: true,
            out: 0,
            batch: None,
            hostile: 0,
        };
        this.disable_calls();
        this
    }

    #[inline]
    fn flags(&self, slot: u16) -> &std::sync::atomic::AtomicU16 {
        debug_assert!(slot < self.places.size);
        // SAFETY: `slot` is one of this half's own cursors, which stay below the size; flags are the last word of a
        // descriptor.
        unsafe { word(self.places.desc.add(usize::from(slot) * DESCRIPTOR + 14)) }
    }

    /// Whether the slot at the used cursor is used.
    #[inline]
    fn is_used(&self) -> bool {
        let flags = self.flags(self.used).load(Ordering::Acquire);
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        avail == used && used == self.used_wrap
    }

    #[inline]
    fn advance_used(&mut self) {
        self.out -= 1;
        self.used += 1;
        if self.used == self.places.size {
            self.used = 0;
            self.used_wrap = !self.used_wrap;
        }
    }
}

impl DriverRing for PackedDriver {
    fn size(&self) -> u16 {
        self.places.size
    }

    fn is_packed(&self) -> bool {
        true
    }

    #[inline]
    fn room(&self) -> u16 {
        // A slot is free when its buffer was popped, an id when it was freed.
        self.free_count.min(self.places.size - self.out)
    }

    #[inline]
    fn next_id(&self) -> u16 {
        self.free[usize::from(self.free_head)]
    }

    #[inline]
    fn add(&mut self, addr: u64, len: u32, flags: u16) {
        if self.room() == 0 {
            return;
        }
        let id = self.next_id();
        self.free_head += 1;
        if self.free_head == self.places.size {
            self.free_head = 0;
        }
        self.free_count -= 1;
        self.out += 1;
        let flags = flags | self.avail_flags;
        // SAFETY: the cursor is below the size; a descriptor has 16 bytes: address, length, id, flags.
        unsafe {
            let at = self.places.desc.add(usize::from(self.next) * DESCRIPTOR);
            at.cast::<u64>().write_volatile(addr);
            at.add(8).cast::<u32>().write_volatile(len);
            at.add(12).cast::<u16>().write_volatile(id);
        }
        // The first of several is shown last, so that the device, which polls it, sees all of them at once and does not
        // take the line away in the middle.
        if self.hidden.is_none() {
            self.hidden = Some((self.next, flags));
        } else {
            self.flags(self.next).store(flags, Ordering::Release);
        }
        self.unnotified = self.unnotified.saturating_add(1);
        self.next += 1;
        if self.next == self.places.size {
            self.next = 0;
            self.avail_flags ^= AVAIL | USED;
        }
    }

    #[inline]
    fn publish(&mut self) {
        if let Some((slot, flags)) = self.hidden.take() {
            self.flags(slot).store(flags, Ordering::Release);
        }
    }

    #[inline]
    fn wants_kick(&mut self) -> bool {
        let count = std::mem::take(&mut self.unnotified);
        if count == 0 {
            return false;
        }
        full_fence();
        // SAFETY: the device's event: off_wrap, flags.
        let (off_wrap, flags) = unsafe { (word(self.places.device), word(self.places.device.add(2))) };
        match flags.load(Ordering::Relaxed) & 3 {
            EVENT_DISABLE => false,
            EVENT_DESC if self.options.event_idx => {
                let wrap = self.avail_flags & AVAIL != 0;
                event_passed(
                    off_wrap.load(Ordering::Relaxed),
                    self.next,
                    wrap,
                    count,
                    self.places.size,
                )
            }
            _ => true,
        }
    }

    #[inline]
    fn pop_used(&mut self) -> Option<Used> {
        if let Some(last) = self.batch {
            // In order, ids follow the slots.
            let id = self.used;
            self.advance_used();
            if id == last.id || self.out == 0 {
                self.batch = None;
            }
            return Some(if id == last.id { last } else { Used::whole(id) });
        }
        if self.out == 0 || !self.is_used() {
            return None;
        }
        // SAFETY: the cursor is below the size. Copied once.
        let (len, id) = unsafe {
            let at = self.places.desc.add(usize::from(self.used) * DESCRIPTOR);
            (
                at.add(8).cast::<u32>().read_volatile(),
                at.add(12).cast::<u16>().read_volatile(),
            )
        };
        if id >= self.places.size {
            self.hostile += 1;
            self.advance_used();
            return self.pop_used();
        }
        let slot = self.used;
        self.advance_used();
        if self.options.in_order && id != slot {
            let far =
                (u32::from(id) + u32::from(self.places.size) - u32::from(slot)) % u32::from(self.places.size);
            if far > u32::from(self.out) {
                self.hostile += 1;
                return Some(Used::told(slot, 0));
            }
            self.batch = Some(Used::told(id, len));
            return Some(Used::whole(slot));
        }
        Some(Used::told(id, len))
    }

    #[inline]
    fn free(&mut self, id: u16) {
        if self.free_count < self.places.size {
            let mut at = u32::from(self.free_head) + u32::from(self.free_count);
            if at >= u32::from(self.places.size) {
                at -= u32::from(self.places.size);
            }
            self.free[at as usize] = id;
            self.free_count += 1;
        }
    }

    fn enable_calls(&mut self) -> bool {
        // SAFETY: the driver's event: off_wrap, flags.
        let (off_wrap, flags) = unsafe { (word(self.places.driver), word(self.places.driver.add(2))) };
        if self.options.event_idx {
            off_wrap.store(self.used | u16::from(self.used_wrap) << 15, Ordering::Relaxed);
            flags.store(EVENT_DESC, Ordering::Release);
        } else {
            flags.store(EVENT_ENABLE, Ordering::Relaxed);
        }
        full_fence();
        self.batch.is_none() && (self.out == 0 || !self.is_used())
    }

    fn disable_calls(&mut self) {
        // SAFETY: the flags of the driver's event.
        unsafe { word(self.places.driver.add(2)) }.store(EVENT_DISABLE, Ordering::Relaxed);
    }

    fn hostile(&self) -> u64 {
        self.hostile
    }
}

/// Whether the slot asked for (its offset, and its lap in bit 15) is among the `count` slots before `next`, in the lap
/// that `wrap` names.
#[inline]
pub(super) fn event_passed(off_wrap: u16, next: u16, wrap: bool, count: u16, size: u16) -> bool {
    let asked = i32::from(off_wrap & 0x7fff);
    let same_lap = (off_wrap >> 15 != 0) == wrap;
    // How far behind `next` the slot is; one of the lap before is a whole ring further off.
    let behind = i32::from(next) - asked + if same_lap { 0 } else { i32::from(size) };
    (1..=i32::from(count)).contains(&behind)
}
