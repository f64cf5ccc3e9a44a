//! The driver's half of a split virtqueue (VIRTIO 1.2, section 2.7).

use std::sync::atomic::Ordering;

use super::copy::{prefetch_read, prefetch_write};
use super::place::{full_fence, read_pair, word};
use super::{DESCRIPTOR, DriverRing, NO_NOTIFY, Options, Places, Used, passes};

/// Descriptors on a line of the cache, and how many lines ahead of its turn one is asked for.
const LINE: u16 = 64 / DESCRIPTOR as u16;
const AHEAD: u16 = 4;

/// The driver's half of a split virtqueue.
#[derive(Debug)]
pub struct SplitDriver {
    places: Places,
    options: Options,
    mask: u16,
    /// Ids that the device does not hold, first in first out: buffers that are used in order keep their slots, so that
    /// descriptors and available ring have the same values lap after lap and need not be written again.
    free: Box<[u16]>,
    free_head: u16,
    free_count: u16,
    /// The next slot of the available ring; what the device may see; what it was when it was last notified.
    next: u16,
    published: u16,
    notified: u16,
    /// The next slot of the used ring, and the device's index when last looked at.
    used: u16,
    used_seen: u16,
    /// In order: the buffer that ends the batch being given out, while there is one.
    batch: Option<Used>,
    /// The last descriptor had to be written: so will those after it.
    rewrites: bool,
    hostile: u64,
}

impl SplitDriver {
    /// An empty ring. The places are cleared: the device has not been told of them yet.
    #[must_use]
    pub fn new(places: Places, options: Options) -> SplitDriver {
        let size = places.size();
        let (desc, driver, device) = Places::lengths(size, false);
        // SAFETY: `Places::new` was promised these lengths; nobody else has the ring yet.
        unsafe {
            places.desc.write_bytes(0, desc);
            places.driver.write_bytes(0, driver);
            places.device.write_bytes(0, device);
        }
        let mut this = SplitDriver {
            places,
            options,
            mask: size - 1,
            free: (0..size).collect(),
            free_head: 0,
            free_count: size,
            next: 0,
            published: 0,
            notified: 0,
            used: 0,
            used_seen: 0,
            batch: None,
            rewrites: false,
            hostile: 0,
        };
        this.disable_calls();
        this
    }

    /// avail->idx.
    #[inline]
    fn available_index(&self) -> &std::sync::atomic::AtomicU16 {
        // SAFETY: the second word of the available ring, which has at least three.
        unsafe { word(self.places.driver.add(2)) }
    }

    /// used_event: after the available ring's slots.
    fn used_event(&self) -> &std::sync::atomic::AtomicU16 {
        // SAFETY: the last word of the available ring's 6 + 2 * size bytes.
        unsafe { word(self.places.driver.add(4 + 2 * usize::from(self.places.size))) }
    }

    /// Looks at the device's index; true when something is there.
    #[inline]
    fn refresh(&mut self) -> bool {
        // SAFETY: the second word of the used ring, which has at least three.
        let seen = unsafe { word(self.places.device.add(2)) }.load(Ordering::Acquire);
        // The device can have used what was published, and takes nothing back.
        let ahead = seen.wrapping_sub(self.used);
        if ahead <= self.published.wrapping_sub(self.used) && ahead >= self.used_seen.wrapping_sub(self.used)
        {
            self.used_seen = seen;
            // The entries of a burst, fetched side by side.
            for entry in (8..ahead.min(64)).step_by(8) {
                let slot = usize::from(self.used.wrapping_add(entry) & self.mask);
                prefetch_read(self.places.device.wrapping_add(4 + 8 * slot));
            }
        } else {
            self.hostile += 1;
        }
        self.used_seen != self.used
    }

    /// The used entry whose turn it is: an id and a length, neither of them checked.
    #[inline(always)]
    fn entry(&self) -> (u32, u32) {
        // SAFETY: masked; the used ring's slots begin at byte 4 and have 8 bytes each. Copied once.
        unsafe {
            let at = self.places.device.add(4 + 8 * usize::from(self.used & self.mask));
            (
                at.cast::<u32>().read_volatile(),
                at.cast::<u32>().add(1).read_volatile(),
            )
        }
    }

    /// As `pop_used`, whatever there is.
    #[inline(never)]
    fn pop_any(&mut self) -> Option<Used> {
        if let Some(last) = self.batch {
            let id = self.used & self.mask;
            self.used = self.used.wrapping_add(1);
            if id == last.id {
                self.batch = None;
                return Some(last);
            }
            return Some(Used::whole(id));
        }
        loop {
            if self.used == self.used_seen && !self.refresh() {
                return None;
            }
            let (id, len) = self.entry();
            if id < u32::from(self.places.size) {
                let used = Used::told(id as u16, len);
                if self.options.in_order {
                    return Some(self.pop_in_order(used));
                }
                self.used = self.used.wrapping_add(1);
                return Some(used);
            }
            self.hostile += 1;
            self.used = self.used.wrapping_add(1);
        }
    }

    /// The device skipped the entries of a batch: its ids follow one another in the order of the free list.
    #[inline]
    fn pop_in_order(&mut self, used: Used) -> Used {
        let id = self.used & self.mask;
        let left = self.used_seen.wrapping_sub(self.used);
        self.used = self.used.wrapping_add(1);
        if used.id == id {
            return used;
        }
        // An entry that names an id further on stands for all up to it.
        if used.id.wrapping_sub(id) & self.mask < left {
            self.batch = Some(used);
            return Used::whole(id);
        }
        self.hostile += 1;
        Used::told(id, 0)
    }
}

impl DriverRing for SplitDriver {
    fn size(&self) -> u16 {
        self.places.size
    }

    fn is_packed(&self) -> bool {
        false
    }

    #[inline]
    fn room(&self) -> u16 {
        self.free_count
    }

    #[inline]
    fn next_id(&self) -> u16 {
        self.free[usize::from(self.free_head & self.mask)]
    }

    #[inline]
    fn add(&mut self, addr: u64, len: u32, flags: u16) {
        if self.free_count == 0 {
            return;
        }
        let id = self.next_id() & self.mask;
        self.free_head = self.free_head.wrapping_add(1);
        self.free_count -= 1;
        let second = u64::from(len) | u64::from(flags) << 32;
        if self.rewrites && id.is_multiple_of(LINE) {
            // Early, since the device has the line: it read what stood there a lap before.
            let ahead = usize::from(id.wrapping_add(AHEAD * LINE) & self.mask);
            prefetch_write(self.places.desc.wrapping_add(ahead * DESCRIPTOR));
        }
        // SAFETY: `id` and `next` are masked, so below the size that the places were promised for. What stands there
        // is compared with what is to stand there and used for nothing else: a line that is not written stays in the
        // device's cache.
        unsafe {
            let at = self.places.desc.add(usize::from(id) * DESCRIPTOR);
            self.rewrites = read_pair(at) != (addr, second);
            if self.rewrites {
                at.cast::<u64>().write_volatile(addr);
                at.cast::<u64>().add(1).write_volatile(second);
            }
            let slot = word(self.places.driver.add(4 + 2 * usize::from(self.next & self.mask)));
            if slot.load(Ordering::Relaxed) != id {
                slot.store(id, Ordering::Relaxed);
            }
        }
        self.next = self.next.wrapping_add(1);
    }

    #[inline]
    fn publish(&mut self) {
        if self.next != self.published {
            self.available_index().store(self.next, Ordering::Release);
            self.published = self.next;
        }
    }

    #[inline]
    fn wants_kick(&mut self) -> bool {
        if self.published == self.notified {
            return false;
        }
        full_fence();
        let old = std::mem::replace(&mut self.notified, self.published);
        if self.options.event_idx {
            // SAFETY: the last word of the used ring's 6 + 8 * size bytes: avail_event.
            let event = unsafe { word(self.places.device.add(4 + 8 * usize::from(self.places.size))) };
            passes(event.load(Ordering::Relaxed), self.published, old)
        } else {
            // SAFETY: the first word of the used ring.
            unsafe { word(self.places.device) }.load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    #[inline(always)]
    fn pop_used(&mut self) -> Option<Used> {
        // What mostly is: an entry of a burst that was seen, for the next buffer where they are used in order.
        if self.used != self.used_seen && self.batch.is_none() {
            let used = self.entry();
            let in_turn = !self.options.in_order || used.0 == u32::from(self.used & self.mask);
            if in_turn && used.0 < u32::from(self.places.size) {
                self.used = self.used.wrapping_add(1);
                return Some(Used::told(used.0 as u16, used.1));
            }
        }
        self.pop_any()
    }

    #[inline]
    fn free(&mut self, id: u16) {
        if self.free_count < self.places.size {
            let at = self.free_head.wrapping_add(self.free_count) & self.mask;
            self.free[usize::from(at)] = id & self.mask;
            self.free_count += 1;
        }
    }

    fn enable_calls(&mut self) -> bool {
        if self.options.event_idx {
            self.used_event().store(self.used, Ordering::Relaxed);
        } else {
            // SAFETY: the first word of the available ring.
            unsafe { word(self.places.driver) }.store(0, Ordering::Relaxed);
        }
        full_fence();
        self.batch.is_none() && self.used == self.used_seen && !self.refresh()
    }

    fn disable_calls(&mut self) {
        if self.options.event_idx {
            // As far ahead as an index can be: passed once in 65,536 buffers.
            self.used_event()
                .store(self.used.wrapping_sub(1), Ordering::Relaxed);
        } else {
            // SAFETY: the first word of the available ring.
            unsafe { word(self.places.driver) }.store(NO_NOTIFY, Ordering::Relaxed);
        }
    }

    fn hostile(&self) -> u64 {
        self.hostile
    }
}
