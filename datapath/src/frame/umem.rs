//! The frame pool: one memory file, cut into frames, with the depot of those that are free.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bifurcate_linux::memory::{Mapping, MemoryFile};
use bifurcate_linux::{Error, Result};

pub use bifurcate_linux::memory::PageKind;

/// Bytes left free before a packet in a fresh frame, for headers to be put in front: as much as the kernel
/// leaves (`XDP_PACKET_HEADROOM`, linux/bpf.h).
pub const HEADROOM: u32 = 256;

/// Bytes of a jumbo frame: a packet of 65,535 bytes (what the kernel joins or leaves unsegmented, and the most that
/// IPv4 has), an Ethernet header with two VLAN tags, the headroom, rounded up to a multiple of both frame sizes.
pub const JUMBO_SIZE: u32 = 69_632;

/// Which pages to put the pool in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages where there are enough, ordinary ones otherwise.
    #[default]
    Auto,
    /// Huge pages, or an error.
    Huge,
    /// Ordinary pages.
    Ordinary,
}

/// How large a pool to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Number of frames.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096 (what AF_XDP's aligned mode takes).
    pub frame_size: u32,
    /// Number of frames of [`JUMBO_SIZE`] bytes, for packets larger than a frame.
    pub jumbo_frames: u32,
    /// The pages.
    pub pages: Pages,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self {
            frames: 4096,
            frame_size: 2048,
            jumbo_frames: 0,
            pages: Pages::Auto,
        }
    }
}

/// The chunks nobody uses.
#[derive(Debug, Default)]
pub(super) struct Depot {
    /// Offsets of free frames.
    pub(super) small: Vec<u32>,
    /// Offsets of free jumbo frames.
    pub(super) jumbo: Vec<u32>,
}

/// The frame pool. Shared by everything that handles its frames.
#[derive(Debug)]
pub struct Umem {
    id: u32,
    mapping: Mapping,
    file: MemoryFile,
    frames: u32,
    shift: u32,
    jumbo_frames: u32,
    depot: Mutex<Depot>,
    /// One entry a frame: 0, or the number of the [`super::Owner`] that lent it to its device.
    pub(super) table: Box<[AtomicU16]>,
    owners: AtomicU16,
    /// Number of caches there are.
    caches: AtomicU32,
}

static POOLS: AtomicU32 = AtomicU32::new(1);

impl Umem {
    /// Makes a pool: a memory file sealed against a change of size, mapped, every frame free.
    ///
    /// # Errors
    /// `EINVAL` for a size that is not 2048 or 4096, for no frames, or for 2 GiB and more (offsets stay small
    /// integers in JavaScript); what the kernel says when memory or, with [`Pages::Huge`], huge pages are
    /// short.
    pub fn map(config: &UmemConfig) -> Result<Arc<Umem>> {
        let len = length(config)?;
        let (file, mapping) = map_pages("bifurcate-umem", len, config.pages)?;
        Ok(Umem::over(file, mapping, config))
    }

    /// The pool in a memory file that another process made, every frame free. `pages` of the config is not looked at.
    ///
    /// # Errors
    /// As [`Umem::map`]; `EINVAL` for a file that is shorter than the pool.
    pub fn received(file: MemoryFile, config: &UmemConfig) -> Result<Arc<Umem>> {
        let len = length(config)?;
        if file.len() < len {
            let why = format!("{config:?}: its memory file has {} bytes, not {len}", file.len());
            return Err(Error::new("frame pool", why, EINVAL));
        }
        let mapping = Mapping::shared(&file)?;
        Ok(Umem::over(file, mapping, config))
    }

    fn over(file: MemoryFile, mapping: Mapping, config: &UmemConfig) -> Arc<Umem> {
        let UmemConfig {
            frames,
            frame_size,
            jumbo_frames,
            ..
        } = *config;
        let area = frames * frame_size;
        // Lowest offsets on top: a cache that refills takes neighbours.
        let small = (0..frames).rev().map(|i| i * frame_size).collect();
        let jumbo = (0..jumbo_frames).rev().map(|i| area + i * JUMBO_SIZE).collect();
        Arc::new(Umem {
            id: POOLS.fetch_add(1, Ordering::Relaxed),
            mapping,
            file,
            frames,
            shift: frame_size.trailing_zeros(),
            jumbo_frames,
            depot: Mutex::new(Depot { small, jumbo }),
            table: (0..frames).map(|_| AtomicU16::new(0)).collect(),
            owners: AtomicU16::new(1),
            caches: AtomicU32::new(0),
        })
    }

    /// The number of this pool, unique in the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The first byte. Mapped for as long as the Umem lives, retired or not.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base()
    }

    /// The mapping itself, for a device that registers it with the kernel.
    #[must_use]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Bytes of the whole pool: frames, then jumbo frames.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a pool has at least one frame")]
    pub fn len(&self) -> usize {
        self.area() as usize + self.jumbo_frames as usize * JUMBO_SIZE as usize
    }

    /// Bytes of the chunk area: the frames without the jumbo frames, what a device is given.
    #[must_use]
    pub fn area(&self) -> u32 {
        self.frames << self.shift
    }

    /// Bytes of a frame.
    #[must_use]
    pub fn frame_size(&self) -> u32 {
        1 << self.shift
    }

    /// Number of frames, jumbo frames not counted.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Number of jumbo frames.
    #[must_use]
    pub fn jumbo_frames(&self) -> u32 {
        self.jumbo_frames
    }

    /// What kind of pages it really stands in.
    #[must_use]
    pub fn page_kind(&self) -> PageKind {
        self.file.pages()
    }

    /// The memory file behind the pool, for another mapping of it or for another process.
    #[must_use]
    pub fn file(&self) -> &MemoryFile {
        &self.file
    }

    /// Replaces the mapping, in place, with zero pages: what still looks at the pool reads zeros, and what it
    /// writes reaches nobody.
    ///
    /// For after the device is quiesced. The memory file and other mappings keep their contents.
    ///
    /// # Errors
    /// `ENOMEM`; the pool is then as before.
    pub fn retire(&self) -> Result<()> {
        self.mapping.zero_in_place()
    }

    /// Leaves the pool's addresses mapped when the Umem is dropped, for a runtime that may look at them for ever:
    /// at the frames, or once retired at zeros.
    pub fn keep_mapped(&self) {
        self.mapping.keep();
    }

    /// Free frames that no [`super::Cache`] holds: (frames, jumbo frames).
    #[must_use]
    pub fn in_depot(&self) -> (usize, usize) {
        let depot = self.depot();
        (depot.small.len(), depot.jumbo.len())
    }

    /// The number of the chunk that byte `offset` of the pool lies in: frames from 0, then jumbo frames.
    /// `None` beyond the pool.
    #[must_use]
    pub fn chunk_of(&self, offset: u32) -> Option<u32> {
        let area = self.area();
        if offset < area {
            Some(offset >> self.shift)
        } else {
            let jumbo = (offset - area) / JUMBO_SIZE;
            (jumbo < self.jumbo_frames).then_some(self.frames + jumbo)
        }
    }

    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    /// The start of the chunk that `offset` lies in; `offset` must lie in the pool.
    #[inline]
    pub(super) fn chunk_start(&self, offset: u32) -> u32 {
        let area = self.area();
        if offset < area {
            offset & !((1 << self.shift) - 1)
        } else {
            offset - (offset - area) % JUMBO_SIZE
        }
    }

    /// The end of the chunk that `offset` lies in; `offset` must lie in the pool.
    #[inline]
    pub(super) fn chunk_end(&self, offset: u32) -> u32 {
        let size = if offset < self.area() {
            1 << self.shift
        } else {
            JUMBO_SIZE
        };
        self.chunk_start(offset) + size
    }

    pub(super) fn depot(&self) -> MutexGuard<'_, Depot> {
        // Whoever panicked with the lock held had at most moved whole offsets: the lists are sound.
        self.depot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cache_made(&self) {
        self.caches.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn cache_gone(&self) {
        self.caches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Frames that one cache may hold: all caches together never more than a quarter of the pool, so that none
    /// finds it empty while others hold frames that they do not use.
    pub(super) fn share_of_a_cache(&self) -> usize {
        (self.frames / 4 / self.caches.load(Ordering::Relaxed).max(1)) as usize
    }

    pub(super) fn new_owner(&self) -> Option<u16> {
        self.owners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
            .ok()
    }
}

const EINVAL: i32 = 22;

/// Bytes of a pool of that shape, or why there can be none.
fn length(config: &UmemConfig) -> Result<usize> {
    let UmemConfig {
        frames,
        frame_size,
        jumbo_frames,
        ..
    } = *config;
    let invalid = |why: &str| Err(Error::new("frame pool", format!("{config:?}: {why}"), EINVAL));
    if frame_size != 2048 && frame_size != 4096 {
        return invalid("a frame has 2048 or 4096 bytes");
    }
    let len = u64::from(frames) * u64::from(frame_size) + u64::from(jumbo_frames) * u64::from(JUMBO_SIZE);
    if frames == 0 || len >= 1 << 31 {
        return invalid("a pool has at least one frame and less than 2 GiB");
    }
    Ok(len as usize)
}

/// A memory file of `len` bytes in such pages, sealed against a change of size, and mapped, so that its pages are there.
pub(crate) fn map_pages(name: &str, len: usize, pages: Pages) -> Result<(MemoryFile, Mapping)> {
    let map = |kind| {
        let file = MemoryFile::create(name, len, kind)?;
        let mapping = Mapping::shared(&file)?;
        Ok((file, mapping))
    };
    match pages {
        Pages::Huge => map(PageKind::Huge),
        Pages::Ordinary => map(PageKind::Ordinary),
        Pages::Auto => map(PageKind::Huge).or_else(|_| map(PageKind::Ordinary)),
    }
}
