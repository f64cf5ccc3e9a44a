//! Where the parts of a virtqueue are in memory that two ends share, and how single values there are read and written.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{DESCRIPTOR, SIZE_MAX};

/// What keeps the memory of a ring mapped.
pub type Keep = Arc<dyn Any + Send + Sync>;

/// The three parts of a virtqueue.
#[derive(Clone)]
pub struct Places {
    /// Descriptors: 16 bytes a slot, aligned to 16.
    pub(super) desc: *mut u8,
    /// Split: the available ring; packed: the driver's event.
    pub(super) driver: *mut u8,
    /// Split: the used ring; packed: the device's event.
    pub(super) device: *mut u8,
    pub(super) size: u16,
    _keep: Keep,
}

// SAFETY: the pointers reach shared memory that `_keep` holds mapped; it belongs to no thread.
unsafe impl Send for Places {}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Bytes of the parts of a ring, and where they are when they stand one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the available ring or the driver's event.
    pub driver: usize,
    /// Offset of the used ring or the device's event.
    pub device: usize,
    /// Bytes of everything.
    pub len: usize,
}

impl Places {
    /// Bytes of the descriptors, of the driver's part and of the device's.
    #[must_use]
    pub fn lengths(size: u16, packed: bool) -> (usize, usize, usize) {
        let slots = usize::from(size);
        if packed {
            (slots * DESCRIPTOR, 4, 4)
        } else {
            (slots * DESCRIPTOR, 6 + 2 * slots, 6 + 8 * slots)
        }
    }

    /// How a driver lays a ring out: each part on cache lines of its own, since different ends write them. 128 bytes,
    /// since processors fetch lines in pairs. The used ring begins 4 bytes after one: so its entries, which come 4 bytes
    /// after its beginning, are aligned to their 8 bytes, and none lies across two lines or two pages.
    #[must_use]
    pub fn layout(size: u16, packed: bool) -> Layout {
        let (desc, driver, device) = Places::lengths(size, packed);
        let at_driver = desc.next_multiple_of(128);
        let at_device = (at_driver + driver).next_multiple_of(128) + if packed { 0 } else { 4 };
        Layout {
            driver: at_driver,
            device: at_device,
            len: (at_device + device).next_multiple_of(128),
        }
    }

    /// A ring of `size` slots at the given places. `None` when the size cannot be (0, beyond 32,768, not a power of two
    /// in the split layout) or a place is not aligned (16, 2 and 4 bytes; section 2.7).
    ///
    /// # Safety
    /// Each place is mapped readable and writable for the bytes that [`Places::lengths`] says, for as long as `keep`
    /// lives.
    #[must_use]
    pub unsafe fn new(
        desc: *mut u8,
        driver: *mut u8,
        device: *mut u8,
        size: u16,
        packed: bool,
        keep: Keep,
    ) -> Option<Places> {
        let events = if packed { 4 } else { 2 };
        let aligned = [(desc, 16), (driver, events), (device, 4)]
            .iter()
            .all(|&(at, to)| (at as usize).is_multiple_of(to));
        let possible = (1..=SIZE_MAX).contains(&size) && (packed || size.is_power_of_two());
        (aligned && possible).then(|| Places {
            desc,
            driver,
            device,
            size,
            _keep: keep,
        })
    }

    /// Slots.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }
}

/// A 16-bit value of the other end or for it.
///
/// # Safety
/// `at` is aligned to 2 and mapped for as long as the reference lives.
#[inline]
pub(super) unsafe fn word<'a>(at: *mut u8) -> &'a AtomicU16 {
    // SAFETY: the caller vouches for place and alignment; an atomic may be shared with another process.
    unsafe { AtomicU16::from_ptr(at.cast()) }
}

/// Copies 16 bytes out once, as two numbers.
///
/// # Safety
/// `at` is aligned to 8 and mapped for 16 bytes.
#[inline]
pub(super) unsafe fn read_pair(at: *const u8) -> (u64, u64) {
    // SAFETY: the caller vouches for the place. Volatile: the other end may write at any time; each value is read once.
    unsafe {
        (
            at.cast::<u64>().read_volatile(),
            at.cast::<u64>().add(1).read_volatile(),
        )
    }
}

/// Orders what was published before a look at whether the other end wants to be told: it orders its own wish before
/// its last look at what was published.
#[inline]
pub(super) fn full_fence() {
    std::sync::atomic::fence(Ordering::SeqCst);
}
