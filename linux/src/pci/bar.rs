//! The registers of a function: a base address register's memory, mapped.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use crate::guard::Guard;
use crate::memory::Mapping;
use crate::{Error, Result};

/// Mapped registers. Reads and writes are little-endian, aligned, inside the mapping, and happen as they are written.
#[derive(Debug)]
pub struct Bar {
    /// Before the mapping, which it guards: registers of a card that is unplugged vanish under who reads them, and read
    /// as zeros from then on.
    _guard: Guard,
    mapping: Mapping,
    len: usize,
}

/// Accesses of one width.
macro_rules! access {
    ($read:ident $write:ident $type:ty) => {
        /// Reads the register at byte `offset`. Slow: the processor waits for the device.
        ///
        /// # Panics
        /// When the offset is not aligned or lies outside.
        #[inline]
        #[must_use]
        pub fn $read(&self, offset: usize) -> $type {
            let at = self.at(offset, size_of::<$type>()).cast::<$type>();
            // SAFETY: `at` checked that the register lies in the mapping, aligned; every bit pattern is a number.
            <$type>::from_le(unsafe { at.read_volatile() })
        }

        /// Writes the register at byte `offset`, after everything that this thread has written to memory before.
        ///
        /// # Panics
        /// When the offset is not aligned or lies outside.
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            let at = self.at(offset, size_of::<$type>()).cast::<$type>();
            // Descriptors first, then the doorbell: x86 keeps stores in order, others need the fence.
            fence(Ordering::Release);
            // SAFETY: as in the read. What the device does with it can only reach memory that is mapped for its DMA.
            unsafe { at.write_volatile(value.to_le()) }
        }
    };
}

impl Bar {
    /// Maps `len` bytes at `offset` of a device file.
    ///
    /// # Errors
    /// Whatever mmap(2) reports.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Bar> {
        if len < 4 {
            return Err(Error::new(
                "mmap",
                format!("{what}: it has no memory"),
                libc::ENXIO,
            ));
        }
        Bar::over(Mapping::of(fd, offset, len, what)?, len)
    }

    fn over(mapping: Mapping, len: usize) -> Result<Bar> {
        Ok(Bar {
            _guard: Guard::new(&mapping, None)?,
            mapping,
            len,
        })
    }

    /// Registers in ordinary memory, all zero: for a model of a device.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn anonymous(len: usize) -> Result<Bar> {
        Bar::over(Mapping::anonymous(len)?, len)
    }

    /// Bytes of it.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "at least one register")]
    pub fn len(&self) -> usize {
        self.len
    }

    access!(read8 write8 u8);
    access!(read16 write16 u16);
    access!(read32 write32 u32);

    #[inline]
    fn at(&self, offset: usize, width: usize) -> *mut u8 {
        assert!(
            offset.is_multiple_of(width) && offset < self.len && self.len - offset >= width,
            "a register at {offset:#x} of {:#x} bytes",
            self.len
        );
        self.mapping.base().as_ptr().wrapping_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::Bar;

    #[test]
    fn registers_are_little_endian_and_inside() {
        let bar = Bar::anonymous(4096).unwrap();
        bar.write32(8, 0x1122_3344);
        assert_eq!(
            (bar.read8(8), bar.read16(10), bar.read32(8)),
            (0x44, 0x1122, 0x1122_3344)
        );
        for offset in [4096, 4094, usize::MAX - 1] {
            assert!(
                std::panic::catch_unwind(|| bar.read32(offset)).is_err(),
                "{offset}"
            );
        }
    }
}
