//! Where each part of a piece of memory lies for a device.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::memory::{HUGE_PAGE, Mapping, ORDINARY_PAGE, PageKind};
use crate::{Error, Result};

const SHIFT: u32 = HUGE_PAGE.trailing_zeros();

/// Offsets into a piece of memory, turned into the addresses that a device uses for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaTable {
    /// The address of each 2 MiB.
    parts: Box<[u64]>,
}

impl DmaTable {
    /// Memory that lies in one piece from `base` on.
    #[must_use]
    pub fn contiguous(base: u64, len: usize) -> DmaTable {
        let parts = (0..len.div_ceil(HUGE_PAGE) as u64).map(|part| base + (part << SHIFT));
        DmaTable {
            parts: parts.collect(),
        }
    }

    /// The physical addresses of a mapping of huge pages, whose pages are present and are never moved or swapped.
    ///
    /// # Errors
    /// `EINVAL` for ordinary pages, which the kernel may move; `EPERM` when the process may not see physical
    /// addresses (CAP_SYS_ADMIN).
    pub fn physical(mapping: &Mapping, pages: PageKind) -> Result<DmaTable> {
        let invalid = |why: &str, errno| Err(Error::new("pagemap", why, errno));
        if pages != PageKind::Huge {
            return invalid(
                "ordinary pages may be moved by the kernel: a device without an IOMMU needs huge pages",
                libc::EINVAL,
            );
        }
        let path = "/proc/self/pagemap";
        let file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
        let base = mapping.base().as_ptr() as u64;
        let mut parts = Vec::new();
        for at in (0..mapping.len() as u64).step_by(HUGE_PAGE) {
            let mut entry = [0; 8];
            // One entry of 8 bytes an ordinary page (Documentation/admin-guide/mm/pagemap.rst).
            file.read_exact_at(&mut entry, (base + at) / ORDINARY_PAGE as u64 * 8)
                .map_err(|e| Error::io("pread", path, &e))?;
            match frame_number(u64::from_ne_bytes(entry)) {
                Some(0) => {
                    return invalid("the kernel hides physical addresses (CAP_SYS_ADMIN)", libc::EPERM);
                }
                Some(frame) => parts.push(frame * ORDINARY_PAGE as u64),
                None => return invalid("a page of the pool is not present", libc::EFAULT),
            }
        }
        Ok(DmaTable { parts: parts.into() })
    }

    /// The device's address of byte `offset`.
    ///
    /// # Panics
    /// Beyond the memory.
    #[inline]
    #[must_use]
    pub fn address(&self, offset: u32) -> u64 {
        self.parts[(offset >> SHIFT) as usize] + u64::from(offset & ((1 << SHIFT) - 1))
    }
}

/// The page frame number of a pagemap entry (bits 0 to 54); none when the page is not present (bit 63).
fn frame_number(entry: u64) -> Option<u64> {
    (entry >> 63 == 1).then_some(entry & ((1 << 55) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_parts() {
        let table = DmaTable::contiguous(1 << 32, 5 << 20);
        assert_eq!(table.address(0), 1 << 32);
        assert_eq!(table.address((4 << 20) + 7), (1 << 32) + (4 << 20) + 7);
    }

    #[test]
    fn an_entry_of_pagemap_is_read_as_its_document_says() {
        assert_eq!(frame_number(1 << 63 | 1 << 61 | 0x1234), Some(0x1234));
        assert_eq!(frame_number(0x1234), None);
    }

    #[test]
    fn ordinary_pages_have_no_physical_address_to_rely_on() {
        let mapping = Mapping::anonymous(4096).unwrap();
        let error = DmaTable::physical(&mapping, PageKind::Ordinary).unwrap_err();
        assert_eq!(error.code(), "EINVAL");
    }
}
