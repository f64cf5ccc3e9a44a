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
use std::path::PathBuf;

use super::space::{AddressSpace, cdev_device, group_device, open};
use crate::Result;
use crate::memory::MemoryFile;
use crate::pci::{Function, Group};

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

/// Whether a descriptor of the function is open somewhere, or its registers are mapped, as far as its group tells; none
/// where that tells nothing: where other functions of it may be open, or there is no such file, or it is not ours.
///
/// Tried by opening the group, which waits for nothing that a holder has in its hands and resets nothing: the kernel
/// refuses that while the group, or by its own file a function of it, is open (vfio_group_fops_open,
/// drivers/vfio/group.c).
///
/// # Errors
/// `EMFILE` and others of open(2).
pub fn is_open(function: &Function) -> Result<Option<bool>> {
    group_look(function, |file| open(file, function.address).map(drop))
}

fn group_look(function: &Function, mut try_open: impl FnMut(PathBuf) -> Result<()>) -> Result<Option<bool>> {
    let Some(group) = function.group()? else {
        return Ok(None);
    };
    // The second is that of a card which VFIO took without an IOMMU.
    for node in ["", "noiommu-"] {
        let tried = try_open(PathBuf::from(format!("/dev/vfio/{node}{}", group.number)));
        let Err(error) = tried else {
            return Ok(Some(false));
        };
        match error.code().as_str() {
            "EBUSY" => return Ok((!is_shared(function, &group)).then_some(true)),
            // ENXIO: a node that nobody has removed, of a group that is gone.
            "ENOENT" | "ENXIO" | "EACCES" | "EPERM" => {}
            _ => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a descriptor of the function is open somewhere, or its registers are mapped. The kernel resets the function
/// when the last one is closed.
///
/// By the function's own file it is tried only where the group tells nothing, see [`is_open`]. That waits for a lock that
/// a holder's ioctls take too (VFIO_DEVICE_BIND_IOMMUFD: `dev_set->lock`), and resets a function that is free.
///
/// # Errors
/// As [`lend`], but for a function that is open somewhere; `ENODEV` when vfio-pci has it no longer.
pub fn is_held(function: &Function) -> Result<bool> {
    match is_open(function)? {
        Some(held) => Ok(held),
        None => is_held_itself(function),
    }
}

/// Whether another function of the group can be open: one that vfio-pci has. A bridge's driver opens nothing.
fn is_shared(function: &Function, group: &Group) -> bool {
    let others = group.members.iter().filter(|member| **member != function.address);
    let mut drivers = others.map(|member| function.sibling(*member).driver());
    drivers.any(|driver| driver.as_deref() == Some("vfio-pci"))
}

fn is_held_itself(function: &Function) -> Result<bool> {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Error;
    use crate::memory::PageKind;
    use crate::pci::Bus;

    const CARD: &str = "0000:01:00.0";

    /// What the group tells of a card whose group has these others, each with its driver, when the group's file gives that
    /// error, or none; and the files that were tried.
    fn looked(
        name: &str,
        others: &[(&str, &str)],
        answer: Option<i32>,
    ) -> (Result<Option<bool>>, Vec<PathBuf>) {
        let root = std::env::temp_dir().join(format!("bf-lend-{}-{name}", std::process::id()));
        for (member, driver) in [(CARD, "vfio-pci")].iter().chain(others) {
            let folder = root.join("devices").join(member);
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(root.join("groups/7/devices").join(member)).unwrap();
            symlink(root.join("drivers").join(driver), folder.join("driver")).unwrap();
            symlink(root.join("groups/7"), folder.join("iommu_group")).unwrap();
        }
        let function = Bus::at(&root).function(CARD.parse().unwrap()).unwrap();
        let mut files = Vec::new();
        let told = group_look(&function, |file| {
            files.push(file);
            answer.map_or(Ok(()), |errno| Err(Error::new("open", "", errno)))
        });
        fs::remove_dir_all(&root).unwrap();
        (told, files)
    }

    /// What it tells, where it is asked by the group's file alone.
    fn told(name: &str, others: &[(&str, &str)], answer: Option<i32>) -> Option<bool> {
        let (told, files) = looked(name, others, answer);
        assert_eq!(files, [PathBuf::from("/dev/vfio/7")]);
        told.unwrap()
    }

    #[test]
    fn a_look_goes_by_the_group_alone_and_waits_for_no_holder() {
        assert_eq!(told("free", &[], None), Some(false));
        let bridge = [("0000:00:1c.0", "pcieport")];
        assert_eq!(told("held", &bridge, Some(libc::EBUSY)), Some(true));
    }

    #[test]
    fn the_group_tells_nothing_where_another_of_it_may_be_the_one_that_is_open() {
        let neighbour = [("0000:01:00.1", "vfio-pci")];
        assert_eq!(told("shared", &neighbour, Some(libc::EBUSY)), None);
        assert_eq!(told("shared-free", &neighbour, None), Some(false));
    }

    #[test]
    fn a_group_whose_file_is_not_there_or_not_ours_tells_nothing() {
        let both = ["/dev/vfio/7", "/dev/vfio/noiommu-7"].map(PathBuf::from);
        for (name, errno) in [
            ("no-file", libc::ENOENT),
            ("no-group", libc::ENXIO),
            ("not-ours", libc::EACCES),
        ] {
            let (told, files) = looked(name, &[], Some(errno));
            assert_eq!((told.unwrap(), files), (None, both.to_vec()));
        }
    }

    /// Why a card is not lent that is in this group of the kernel's, or in none.
    fn not_lent(name: &str, group: Option<&str>) -> Error {
        let root = std::env::temp_dir().join(format!("bf-lend-{}-{name}", std::process::id()));
        let folder = root.join("devices").join(CARD);
        fs::create_dir_all(&folder).unwrap();
        if let Some(group) = group {
            let group = root.join("groups").join(group);
            fs::create_dir_all(group.join("devices").join(CARD)).unwrap();
            symlink(group, folder.join("iommu_group")).unwrap();
        }
        let function = Bus::at(&root).function(CARD.parse().unwrap());
        let memory = MemoryFile::create("bf-lend", 1 << 21, PageKind::Ordinary).unwrap();
        let lent = lend(&function.unwrap(), &memory, 1 << 32);
        fs::remove_dir_all(&root).unwrap();
        lent.expect_err("nothing stands before its memory")
    }

    #[test]
    fn a_card_without_an_iommu_is_not_lent() {
        let error = not_lent("no-iommu", None);
        assert_eq!(error.code(), "ENXIO");
        assert!(error.to_string().contains("in no IOMMU group"), "{error}");
        // In the no-IOMMU mode the kernel numbers groups too, and names their files noiommu-N.
        let error = not_lent("unsafe", Some("4000000007"));
        assert_eq!(error.code(), "ENOENT");
        assert!(error.to_string().contains("/dev/vfio/4000000007"), "{error}");
    }

    #[test]
    fn what_cannot_be_looked_at_is_an_error_and_not_free() {
        let (told, _) = looked("limit", &[], Some(libc::EMFILE));
        assert_eq!(told.unwrap_err().code(), "EMFILE");
    }
}
