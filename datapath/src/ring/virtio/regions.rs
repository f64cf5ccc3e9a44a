//! The memory table: which of the driver's addresses are mapped here, and where.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Keep;

/// One region of the driver's memory.
#[derive(Clone)]
pub struct Region {
    /// Its first address as descriptors have it (guest physical, or IOVA).
    pub addr: u64,
    /// Its first address as ring addresses have it (VHOST_USER's user address).
    pub user: u64,
    /// Bytes.
    pub len: u64,
    base: NonNull<u8>,
    _keep: Keep,
}

// SAFETY: an address range that `_keep` holds mapped, tied to no thread; it is only read and written through raw
// pointers.
unsafe impl Send for Region {}
// SAFETY: as above: `&Region` gives numbers and a raw pointer.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.addr, self.len)
    }
}

impl Region {
    /// A region at `base`. `None` when it is empty or wraps around the end of either address space.
    ///
    /// # Safety
    /// `base` is mapped readable and writable for `len` bytes for as long as `keep` lives, and Rust holds no
    /// reference into it.
    #[must_use]
    pub unsafe fn new(addr: u64, user: u64, len: u64, base: NonNull<u8>, keep: Keep) -> Option<Region> {
        let fits = len > 0 && addr.checked_add(len).is_some() && user.checked_add(len).is_some();
        fits.then_some(Region {
            addr,
            user,
            len,
            base,
            _keep: keep,
        })
    }
}

/// The whole table.
#[derive(Clone, Debug, Default)]
pub struct Regions(Vec<Region>);

impl Regions {
    /// A table of regions. `None` when two of them overlap, in either address space.
    #[must_use]
    pub fn new(regions: Vec<Region>) -> Option<Regions> {
        let apart = |a: u64, b: u64, a_len: u64, b_len: u64| a + a_len <= b || b + b_len <= a;
        let good = regions.iter().enumerate().all(|(at, a)| {
            regions[..at]
                .iter()
                .all(|b| apart(a.addr, b.addr, a.len, b.len) && apart(a.user, b.user, a.len, b.len))
        });
        good.then_some(Regions(regions))
    }

    /// Where `len` bytes at ring address `user` are mapped. `None` when they do not lie in one region.
    #[must_use]
    pub fn ring_at(&self, user: u64, len: usize) -> Option<*mut u8> {
        self.0.iter().find_map(|region| {
            let from = user.checked_sub(region.user)?;
            let fits = from < region.len && len as u64 <= region.len - from;
            // SAFETY: within the region's mapped bytes.
            fits.then(|| unsafe { region.base.as_ptr().add(from as usize) })
        })
    }

    /// What keeps every region mapped.
    #[must_use]
    pub fn keep(&self) -> Keep {
        Arc::new(self.clone())
    }

    /// Number of regions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The table as one queue looks through it: it remembers the region of the last answer, which is nearly always that
/// of the next.
#[derive(Debug)]
pub struct Window {
    regions: Arc<Regions>,
    addr: u64,
    len: u64,
    base: *mut u8,
}

// SAFETY: `base` points into a region that `regions` keeps mapped, tied to no thread.
unsafe impl Send for Window {}

impl Window {
    /// Looks through `regions`.
    #[must_use]
    pub fn new(regions: Arc<Regions>) -> Window {
        Window {
            regions,
            addr: 0,
            len: 0,
            base: std::ptr::null_mut(),
        }
    }

    /// Where `len` bytes at the driver's `addr` are mapped. `None` when they do not lie in one region. Mapped for as
    /// long as this Window lives; the driver may write there at any time.
    #[inline(always)]
    pub fn at(&mut self, addr: u64, len: u32) -> Option<*mut u8> {
        let from = addr.wrapping_sub(self.addr);
        // One comparison for both ends: `from` is huge when `addr` lies before the region.
        if from < self.len && u64::from(len) <= self.len - from {
            // SAFETY: within the region's mapped bytes.
            return Some(unsafe { self.base.add(from as usize) });
        }
        self.search(addr, len)
    }

    #[cold]
    fn search(&mut self, addr: u64, len: u32) -> Option<*mut u8> {
        for region in &self.regions.0 {
            let from = addr.wrapping_sub(region.addr);
            if from < region.len && u64::from(len) <= region.len - from {
                (self.addr, self.len, self.base) = (region.addr, region.len, region.base.as_ptr());
                // SAFETY: as in `at`.
                return Some(unsafe { self.base.add(from as usize) });
            }
        }
        None
    }
}
