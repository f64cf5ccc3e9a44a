//! Shared memory: memfds, huge pages, mappings, and replacing a mapping in place with zero pages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::{Error, Result};

/// Bytes of one ordinary page on the architectures supported here.
pub const ORDINARY_PAGE: usize = 4096;

/// Bytes of one huge page: the default hugetlb size of x86-64 and of arm64 with 4 KiB pages.
pub const HUGE_PAGE: usize = 2 << 20;

/// What kind of pages backs a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// 2 MiB pages from the hugetlb pool (`/proc/sys/vm/nr_hugepages`).
    Huge,
    /// 4 KiB pages.
    Ordinary,
}

impl PageKind {
    /// Bytes of one page of this kind.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            PageKind::Huge => HUGE_PAGE,
            PageKind::Ordinary => ORDINARY_PAGE,
        }
    }

    /// `len` rounded up to whole pages of this kind.
    #[must_use]
    pub fn round_up(self, len: usize) -> usize {
        len.next_multiple_of(self.size())
    }
}

/// An anonymous file in memory (memfd), which several mappings and processes can share.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
    len: usize,
    pages: PageKind,
}

impl MemoryFile {
    /// Creates a memfd of at least `len` bytes (rounded up to whole pages), sealed against a change of size.
    ///
    /// `name` is what `/proc/PID/maps` shows. With `PageKind::Huge`, having too few free huge pages is not
    /// seen here but as `ENOMEM` by [`Mapping::shared`], which reserves them.
    ///
    /// # Errors
    /// Whatever memfd_create(2), ftruncate(2) or the sealing fcntl(2) report.
    pub fn create(name: &str, len: usize, pages: PageKind) -> Result<MemoryFile> {
        let len = pages.round_up(len.max(1));
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if pages == PageKind::Huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let fd = rustix::fs::memfd_create(name, flags)
            .map_err(|e| Error::rustix("memfd_create", format!("name={name} pages={pages:?}"), e))?;
        rustix::fs::ftruncate(&fd, len as u64)
            .map_err(|e| Error::rustix("ftruncate", format!("memfd len={len}"), e))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)
            .map_err(|e| Error::rustix("fcntl", "F_ADD_SEALS shrink grow seal", e))?;
        Ok(MemoryFile { fd, len, pages })
    }

    /// The memory file behind a descriptor that another process made and passed.
    ///
    /// # Errors
    /// `EINVAL` when it is no file of memory, or its size could be changed: reading it might then end the process.
    pub fn received(fd: OwnedFd) -> Result<MemoryFile> {
        let call = "fcntl(F_GET_SEALS)";
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|e| Error::rustix(call, "", e))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(Error::new(call, format!("seals={seals:?}"), libc::EINVAL));
        }
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::rustix("fstat", "memfd", e))?;
        let len = usize::try_from(stat.st_size).unwrap_or(0);
        if len == 0 {
            return Err(Error::new("fstat", "memfd len=0", libc::EINVAL));
        }
        let huge = stat.st_blksize as usize == HUGE_PAGE;
        let pages = if huge { PageKind::Huge } else { PageKind::Ordinary };
        Ok(MemoryFile { fd, len, pages })
    }

    /// Gives its pages back to the kernel, also those that another process has mapped or keeps the file for: who reads
    /// there from now on reads zeros, and gets new pages thereby. A page that is pinned for a device or for I/O goes when
    /// it is unpinned.
    ///
    /// # Errors
    /// Whatever fallocate(2) reports; `EPERM` for a file that was sealed against writing.
    pub fn discard(&self) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, 0, self.len as u64)
            .map_err(|e| Error::rustix("fallocate(PUNCH_HOLE)", format!("memfd len={}", self.len), e))
    }

    /// Length in bytes, whole pages.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a memory file is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The kind of pages behind it.
    #[must_use]
    pub fn pages(&self) -> PageKind {
        self.pages
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a descriptor says of the memory file behind it: its length and the size of its pages, in bytes. `None` when it
/// is no memory file: memfd, tmpfs and hugetlbfs have those. A page of another file comes from a disk, or from whoever
/// serves the file system, who may take for ever.
#[must_use]
pub fn file_facts(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    // Only files of memory know of seals (memfd_file_seals_ptr() in the kernel's mm/memfd.c), and the kernel asks nobody
    // else for them, as it would for fstat or statfs of a file system in user space.
    rustix::fs::fcntl_get_seals(fd).ok()?;
    let stat = rustix::fs::fstat(fd).ok()?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    // st_blksize of hugetlbfs and of a hugetlb memfd is its page size (hugetlbfs_getattr); other files may say less
    // than a page.
    let page = u64::try_from(stat.st_blksize)
        .unwrap_or(0)
        .max(ORDINARY_PAGE as u64);
    (regular && page.is_power_of_two()).then_some((u64::try_from(stat.st_size).unwrap_or(0), page))
}

/// A mapped range of memory, unmapped when dropped.
///
/// The range may be written by the kernel, a device or another process at any time, so this type never
/// hands out a reference: its user reads and writes through the pointer and answers for that.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Somebody outside Rust may look at the range for ever: it is not unmapped.
    kept: AtomicBool,
}

// SAFETY: a Mapping is an address range and nothing else; the range belongs to the process, not to the
// thread that made it, and munmap(2) may be called from any thread.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` one can only learn base and length, or replace the pages by zero pages, which
// the kernel does atomically with regard to other threads' page tables.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `file`, readable and writable, shared, every page present from the start.
    ///
    /// # Errors
    /// `ENOMEM` when there are too few free huge pages or too little memory.
    pub fn shared(file: &MemoryFile) -> Result<Mapping> {
        let args = format!("memfd len={} pages={:?}", file.len, file.pages);
        Mapping::of_fd(file.as_fd(), 0, file.len, args)
    }

    /// Maps `len` bytes of `fd` from byte `offset` on, readable and writable, shared, pages present.
    ///
    /// `what` names the descriptor in an error, for example `"AF_XDP rx ring"`.
    ///
    /// # Errors
    /// Whatever mmap(2) reports.
    pub fn of(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Mapping> {
        Mapping::of_fd(fd, offset, len, format!("{what} offset={offset:#x} len={len}"))
    }

    /// As [`Mapping::of`], with pages that come when they are first touched: for another's memory, of which most may
    /// never be.
    ///
    /// # Errors
    /// Whatever mmap(2) reports.
    pub fn lazy(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Mapping> {
        let args = format!("{what} offset={offset:#x} len={len}");
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        Mapping::map(fd, offset, len, writable, MapFlags::SHARED, args)
    }

    /// As [`Mapping::of`], but to be read only.
    ///
    /// # Errors
    /// Whatever mmap(2) reports.
    pub fn read_only(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Mapping> {
        let args = format!("{what} offset={offset:#x} len={len} read-only");
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        Mapping::map(fd, offset, len, ProtFlags::READ, flags, args)
    }

    fn of_fd(fd: BorrowedFd<'_>, offset: u64, len: usize, args: String) -> Result<Mapping> {
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        Mapping::map(
            fd,
            offset,
            len,
            writable,
            MapFlags::SHARED | MapFlags::POPULATE,
            args,
        )
    }

    fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
        args: String,
    ) -> Result<Mapping> {
        // SAFETY: a null hint without MAP_FIXED makes the kernel choose a range that nothing else occupies,
        // so no memory that Rust knows of changes.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        Mapping::new(base, len, args)
    }

    /// Maps at least `len` bytes of private zero pages of the ordinary kind.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn anonymous(len: usize) -> Result<Mapping> {
        let len = PageKind::Ordinary.round_up(len.max(1));
        // SAFETY: as in `of_fd`: the kernel chooses a free range.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Mapping::new(base, len, format!("anonymous len={len}"))
    }

    fn new(base: rustix::io::Result<*mut core::ffi::c_void>, len: usize, args: String) -> Result<Mapping> {
        let base = base.map_err(|e| Error::rustix("mmap", args, e))?;
        let base = NonNull::new(base.cast()).expect("mmap without MAP_FIXED never returns address 0");
        Ok(Mapping {
            base,
            len,
            kept: AtomicBool::new(false),
        })
    }

    /// The first byte. Valid for [`Mapping::len`] bytes for as long as the Mapping lives.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "mmap refuses a length of 0")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts private zero pages in the place of what is mapped, at the same addresses.
    ///
    /// A pointer into the range that somebody kept reads zeros from now on, and what it writes reaches
    /// nobody; it never meets unmapped memory. Other mappings of the same file keep their contents.
    ///
    /// # Errors
    /// `ENOMEM`; the old pages are then still there.
    pub fn zero_in_place(&self) -> Result<()> {
        // SAFETY: base..base+len is exactly what this Mapping owns (made by mmap, not yet unmapped), so
        // MAP_FIXED displaces nothing else. Raw pointers into it stay valid: same range, same protection.
        let done = unsafe {
            rustix::mm::mmap_anonymous(
                self.base.as_ptr().cast(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        };
        done.map(drop)
            .map_err(|e| Error::rustix("mmap", format!("MAP_FIXED zero pages len={}", self.len), e))
    }

    /// Leaves the range mapped when the Mapping is dropped, for a runtime that may look at it for ever.
    /// After [`Mapping::zero_in_place`] that costs addresses, and memory only where somebody still writes.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Gives up ownership without unmapping: the range stays mapped until the process ends.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if *self.kept.get_mut() {
            return;
        }
        // SAFETY: the range was mapped by `new` and this is its only owner; whoever took a raw pointer from
        // `base()` had to keep the Mapping alive while using it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(map: &Mapping, at: usize, value: u8) {
        assert!(at < map.len());
        // SAFETY: `at` lies inside the mapping, which the test alone writes.
        unsafe { map.base().as_ptr().add(at).write_volatile(value) }
    }

    fn read(map: &Mapping, at: usize) -> u8 {
        assert!(at < map.len());
        // SAFETY: as in `write`.
        unsafe { map.base().as_ptr().add(at).read_volatile() }
    }

    #[test]
    fn two_mappings_of_one_file_share_bytes() {
        let file = MemoryFile::create("bf-test", 10_000, PageKind::Ordinary).unwrap();
        assert_eq!(file.len(), 12_288);
        let (a, b) = (Mapping::shared(&file).unwrap(), Mapping::shared(&file).unwrap());
        write(&a, 9_000, 7);
        assert_eq!(read(&b, 9_000), 7);
    }

    #[test]
    fn the_size_of_a_memory_file_is_sealed() {
        let file = MemoryFile::create("bf-test", 8192, PageKind::Ordinary).unwrap();
        assert!(rustix::fs::ftruncate(&file, 4096).is_err());
        assert!(rustix::fs::ftruncate(&file, 16384).is_err());
    }

    #[test]
    fn discarded_pages_are_the_kernels_also_where_another_keeps_the_file_and_its_mapping() {
        let file = MemoryFile::create("bf-test", 8192, PageKind::Ordinary).unwrap();
        let kept = MemoryFile::received(file.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let map = Mapping::shared(&kept).unwrap();
        write(&map, 5000, 9);
        let blocks = || rustix::fs::fstat(&kept).unwrap().st_blocks;
        assert_eq!(blocks(), 16);
        file.discard().unwrap();
        assert_eq!(blocks(), 0);
        assert_eq!(read(&map, 5000), 0);
    }

    #[test]
    fn zeroing_in_place_keeps_the_address_readable_and_the_other_mapping_intact() {
        let file = MemoryFile::create("bf-test", 8192, PageKind::Ordinary).unwrap();
        let (a, b) = (Mapping::shared(&file).unwrap(), Mapping::shared(&file).unwrap());
        write(&a, 5000, 9);
        a.zero_in_place().unwrap();
        assert_eq!(read(&a, 5000), 0);
        write(&a, 5000, 3);
        assert_eq!(read(&b, 5000), 9);
    }

    #[test]
    fn huge_pages_that_do_not_exist_are_an_error_that_names_the_call() {
        // A thousand TiB of huge pages is nowhere to be had.
        let len = 1usize << 50;
        let err = match MemoryFile::create("bf-test", len, PageKind::Huge) {
            Ok(file) => Mapping::shared(&file).unwrap_err(),
            Err(err) => err,
        };
        assert!(["mmap", "ftruncate", "memfd_create"].contains(&err.call), "{err}");
    }
}
