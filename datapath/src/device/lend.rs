//! Cards that one process lends to another: opened, and their memory mapped, by who has the right to; driven by who has
//! none.
//!
//! ```text
//!   memory file   | frames ........ | rings ....... |      sealed against a change of size
//!   I/O address   iova              iova + rings_at        both multiples of 2 MiB
//! ```
//!
//! DATA OWNERSHIP after the handover: frames and rings are the borrower's and the card's; the lender has unmapped the
//! file and closed the card, and keeps the power to take the memory from the card, and to give its pages back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bifurcate_linux::card::{Card, IOVA_BASE, LentMemory};
use bifurcate_linux::memory::{HUGE_PAGE, MemoryFile, PageKind};
use bifurcate_linux::pci::{Address, Bus};
use bifurcate_linux::vfio::{self, Loan};
use bifurcate_linux::{Error, Result};

use super::cards::{self, Opened};
use super::pmd::Config;
use crate::frame::{Pages, Umem, UmemConfig, map_pages};

/// What a card is lent with.
#[derive(Debug)]
pub struct Lent {
    /// The card's VFIO descriptor.
    pub device: OwnedFd,
    /// The memory file of frames and rings.
    pub memory: OwnedFd,
    /// What it stands in.
    pub pages: PageKind,
    /// The I/O address of its first byte.
    pub iova: u64,
    /// Where the rings begin.
    pub rings_at: u64,
    /// What the lender keeps: power over what the card reaches.
    pub loan: Loan,
    /// And the memory file, whose pages are to be given back although the borrower may keep it.
    pub kept: MemoryFile,
}

/// Opens the card at `address`, which is bound to vfio-pci already, and lets it reach new memory of `pool_bytes` bytes
/// for frames and `ring_bytes` for rings, and nothing else.
///
/// # Errors
/// `EOPNOTSUPP` for a card that no driver here knows; `EINVAL` for memory of 2 GiB and more; as [`vfio::lend`].
pub fn lend(bus: &Bus, address: Address, pool_bytes: u64, ring_bytes: u64, pages: Pages) -> Result<Lent> {
    cards::check_known(bus, address)?;
    let rings_at = pool_bytes.next_multiple_of(HUGE_PAGE as u64);
    let len = rings_at.saturating_add(ring_bytes);
    if pool_bytes == 0 || ring_bytes == 0 || len >= 1 << 31 {
        let why =
            format!("address={address} pool={pool_bytes} rings={ring_bytes}: some, and less than 2 GiB");
        return Err(Error::new("lease(VFIO)", why, EINVAL));
    }
    let (memory, mapping) = map_pages("bifurcate-card", len as usize, pages)?;
    drop(mapping);
    let (loan, device) = vfio::lend(&bus.function(address)?, &memory, IOVA_BASE)?;
    let passed = memory.as_fd().try_clone_to_owned();
    Ok(Lent {
        device,
        memory: passed.map_err(|error| Error::io("fcntl", "F_DUPFD_CLOEXEC memfd", &error))?,
        pages: memory.pages(),
        iova: IOVA_BASE,
        rings_at,
        loan,
        kept: memory,
    })
}

/// A card as it came from its lender. The numbers are the lender's word; they are held against the memory file.
#[derive(Debug)]
pub struct Received {
    /// The card's VFIO descriptor.
    pub device: OwnedFd,
    /// The memory file of frames and rings.
    pub memory: OwnedFd,
    /// The I/O address of its first byte.
    pub iova: u64,
    /// Where the rings begin.
    pub rings_at: u64,
    /// Bytes of the rings.
    pub ring_bytes: u64,
}

/// Starts a card that was lent, and opens its queues over the pool in its memory. Asks for no right at all.
///
/// # Errors
/// `EINVAL`: the numbers do not fit the memory file. `ENOTTY`: the descriptor is no VFIO device. `ENOMEM`: the rings
/// that `config` wants are larger than those that were lent. As [`cards::open`].
pub fn open(
    bus: &Bus,
    address: Address,
    lent: Received,
    pool: &UmemConfig,
    config: &Config,
) -> Result<(Opened, Arc<Umem>)> {
    let memory = MemoryFile::received(lent.memory)?;
    let end = lent.rings_at.checked_add(lent.ring_bytes);
    if end.is_none_or(|end| end > memory.len() as u64) || lent.ring_bytes == 0 {
        let Received {
            rings_at, ring_bytes, ..
        } = lent;
        let len = memory.len();
        let why = format!(
            "address={address} rings_at={rings_at} ring_bytes={ring_bytes}: the memory file has {len}"
        );
        return Err(Error::new("lease(VFIO)", why, EINVAL));
    }
    let file = memory.as_fd().try_clone_to_owned();
    let lent_memory = LentMemory {
        file: file.map_err(|error| Error::io("fcntl", "F_DUPFD_CLOEXEC memfd", &error))?,
        iova: lent.iova,
        rings_at: lent.rings_at,
        ring_bytes: lent.ring_bytes as usize,
    };
    let umem = Umem::received(memory, pool)?;
    if umem.len() as u64 > lent.rings_at {
        let why = format!("address={address} pool={}: it reaches into the rings", umem.len());
        return Err(Error::new("lease(VFIO)", why, EINVAL));
    }
    let card = Card::received(bus, address, lent.device, lent_memory)?;
    Ok((cards::open_card(card, config, &umem)?, umem))
}

const EINVAL: i32 = 22;
