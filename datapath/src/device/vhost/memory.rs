//! The driver's memory, mapped: its table checked against the files, and guarded against what happens to them later.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use bifurcate_linux::event::EventFd;
use bifurcate_linux::guard::Guard;
use bifurcate_linux::memory::{Mapping, file_facts};
use bifurcate_linux::{Error, Result};

use crate::ring::virtio::{Region, Regions};
use crate::vhost_user::message::MemoryRegion;

const EINVAL: i32 = 22;

/// A mapped memory table.
pub(super) struct Memory {
    pub(super) regions: Arc<Regions>,
    files: Vec<Arc<Mapped>>,
}

/// One file of it. The guard goes before the mapping.
struct Mapped {
    guard: Guard,
    mapping: Mapping,
}

impl Memory {
    /// Maps a table. `event` is raised when a part of it vanishes.
    ///
    /// # Errors
    /// `EINVAL` for regions that overlap, are empty, wrap around, or reach beyond their file, and for descriptors of
    /// something else than a memory file; what mmap(2) reports.
    pub(super) fn map(table: &[MemoryRegion], fds: Vec<OwnedFd>, event: &EventFd) -> Result<Arc<Memory>> {
        let refused = |of: &MemoryRegion, why: &str| {
            let what = format!("region at {:#x}, {:#x} bytes: {why}", of.guest, of.size);
            Error::new("vhost-user memory table", what, EINVAL)
        };
        let mut files = Vec::new();
        let mut regions = Vec::new();
        for (of, fd) in table.iter().zip(fds) {
            let (file, page) =
                file_facts(fd.as_fd()).ok_or_else(|| refused(of, "its descriptor is no memory file"))?;
            let end = of.offset.checked_add(of.size).filter(|&end| end <= file);
            let Some(end) = end else {
                return Err(refused(of, "it reaches beyond the end of its file"));
            };
            // Whole pages, as mmap takes them: from the page that it begins in.
            let from = of.offset & !(page - 1);
            let len = usize::try_from(end.next_multiple_of(page) - from)
                .map_err(|_| refused(of, "it is larger than the address space"))?;
            let mapping = Mapping::lazy(fd.as_fd(), from, len.max(1), "region of the driver's memory")?;
            let guard = Guard::new(&mapping, Some(event))?;
            // SAFETY: within the mapping: `from` is at most `offset`.
            let base = unsafe { mapping.base().add((of.offset - from) as usize) };
            let mapped = Arc::new(Mapped { guard, mapping });
            regions
                .push(region(of, base, &mapped).ok_or_else(|| refused(of, "it is empty or wraps around"))?);
            files.push(mapped);
        }
        let regions = Regions::new(regions)
            .ok_or_else(|| Error::new("vhost-user memory table", "two regions overlap", EINVAL))?;
        Ok(Arc::new(Memory {
            regions: Arc::new(regions),
            files,
        }))
    }

    /// Whether a part of it has vanished: zeros are in its place.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        self.files.iter().any(|file| file.guard.is_lost())
    }
}

fn region(of: &MemoryRegion, base: NonNull<u8>, keep: &Arc<Mapped>) -> Option<Region> {
    debug_assert!(keep.mapping.len() as u64 >= of.size);
    let keep: Arc<dyn Any + Send + Sync> = Arc::clone(keep) as _;
    // SAFETY: `base` has `size` bytes of the mapping after it, as was checked against the file, and `keep` is the
    // mapping; nothing here ever makes a reference into it.
    unsafe { Region::new(of.guest, of.user, of.size, base, keep) }
}
