//! A function lent to another process: opened and mapped here, driven there.
//!
//! ```text
//!   lender                                             borrower (no capability)
//!   iommufd, or container and group                    the function's descriptor: registers, interrupts, reset
//!   maps the memory file for the function   ───────>   the memory file: frames and rings
//! ```
//!
//! The ioctls that map memory belong to the iommufd and to the container, which never leave the lender: whoever has the
//! function's descriptor can make it reach that one file, or nothing. Each loan has an I/O address space, and an
//! iommufd, of its own: the descriptor may be attached to any space of its iommufd
//! (VFIO_DEVICE_ATTACH_IOMMUFD_PT), so there must be no other.

use std::os::fd::OwnedFd;

use super::space::{AddressSpace, cdev_device, group_device};
use crate::Result;
use crate::memory::MemoryFile;
use crate::pci::Function;

/// What the lender keeps: power over what the function reaches. Dropped, it leaves the function as it is: the kernel
/// keeps the mappings for as long as the function's descriptor is open somewhere.
#[derive(Debug)]
pub struct Loan {
    space: AddressSpace,
    iova: u64,
    len: usize,
}

impl Loan {
    /// Takes the memory from the function: from now on the IOMMU stops whatever it tries to reach, whoever drives it.
    ///
    /// # Errors
    /// `ENOENT` or `EINVAL` when it was taken before.
    pub fn revoke(&self) -> Result<()> {
        self.space.unmap(self.iova, self.len)
    }
}

/// Opens a function, by its own file or else by its group, and lets it reach all of `memory` at I/O address `iova`, and
/// nothing else. Gives the loan, and the descriptor to be passed on.
///
/// # Errors
/// As [`super::open_group`]; `EINVAL` or `EBUSY` when the function is open somewhere; `ENOMEM` when the process may lock
/// no more memory (RLIMIT_MEMLOCK, above which CAP_IPC_LOCK stands).
pub fn lend(function: &Function, memory: &MemoryFile, iova: u64) -> Result<(Loan, OwnedFd)> {
    let by_cdev = cdev_device(function).and_then(|opened| mapped(opened, memory, iova));
    match by_cdev {
        // No such file; a kernel whose iommufd takes no memory files (before 6.13).
        Err(error) if matches!(error.code().as_str(), "ENOENT" | "ENOTTY" | "EOPNOTSUPP") => {
            mapped(group_device(function, true)?, memory, iova)
        }
        done => done,
    }
}

fn mapped(
    (space, device): (AddressSpace, OwnedFd),
    memory: &MemoryFile,
    iova: u64,
) -> Result<(Loan, OwnedFd)> {
    space.map_file(memory, iova)?;
    let len = memory.len();
    Ok((Loan { space, iova, len }, device))
}

/// Whether a descriptor of the function is open somewhere: tried, by opening it. The kernel resets the function when
/// the last one is closed.
///
/// # Errors
/// As [`lend`], but for a function that is open somewhere.
pub fn is_held(function: &Function) -> Result<bool> {
    let opened = match cdev_device(function) {
        Err(error) if error.code() == "ENOENT" => group_device(function, true).map(drop),
        opened => opened.map(drop),
    };
    match opened {
        Ok(()) => Ok(false),
        // By its own file a second one is refused as invalid (vfio_df_open, drivers/vfio/vfio_main.c).
        Err(error) if matches!(error.code().as_str(), "EBUSY" | "EINVAL") => Ok(true),
        Err(error) => Err(error),
    }
}
