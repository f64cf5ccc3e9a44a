//! UIO: a PCI function's interrupts by a file, its registers by sysfs, and no protection of the host's memory at all.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::pci::{Bar, ConfigSpace, Function};
use crate::{Error, Result};

/// Which kernel driver holds the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UioDriver {
    /// `uio_pci_generic`, upstream: the interrupt line alone, switched by the Command register.
    PciGeneric,
    /// `igb_uio`, out of the kernel's tree: MSI-X too, one vector, switched by a write.
    IgbUio,
}

/// A function opened through UIO.
#[derive(Debug)]
pub struct UioDevice {
    file: File,
    function: Function,
    driver: UioDriver,
}

impl UioDevice {
    /// Opens the `/dev/uioN` of a function.
    ///
    /// # Errors
    /// `ENXIO` when there is none: no UIO driver has the function; what open(2) reports.
    pub fn open(function: &Function, driver: UioDriver) -> Result<UioDevice> {
        let address = function.address;
        let Some(name) = function.children("uio").into_iter().next() else {
            let why = format!("address={address}: no UIO driver has it");
            return Err(Error::new("uio", why, libc::ENXIO));
        };
        let path = PathBuf::from("/dev").join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open", format!("address={address} path={}", path.display()), &e))?;
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|e| Error::rustix("fcntl", "F_GETFL uio", e))?;
        rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)
            .map_err(|e| Error::rustix("fcntl", "F_SETFL uio", e))?;
        Ok(UioDevice {
            file,
            function: function.clone(),
            driver,
        })
    }

    /// Configuration space, by sysfs.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn config(&self) -> Result<ConfigSpace> {
        self.function.open_config()
    }

    /// Maps base address register `bar`, by sysfs.
    ///
    /// # Errors
    /// `ENXIO` when it is no memory; what open(2) and mmap(2) report, `EPERM` under kernel lockdown.
    pub fn map_bar(&self, bar: u32) -> Result<Bar> {
        let resource = self.function.resource(bar as usize)?;
        let path = self.function.folder().join(format!("resource{bar}"));
        let what = format!("path={}", path.display());
        if !resource.is_memory {
            return Err(Error::new(
                "mmap",
                format!("{what}: no memory that can be mapped"),
                libc::ENXIO,
            ));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open", what.clone(), &e))?;
        Bar::map(file.as_fd(), 0, resource.len as usize, &what)
    }

    /// Lets the next interrupt through: UIO holds the line back after each.
    ///
    /// # Errors
    /// What write(2) reports.
    pub fn unmask(&self, config: &ConfigSpace) -> Result<()> {
        match self.driver {
            UioDriver::PciGeneric => config.set_intx(true),
            UioDriver::IgbUio => (&self.file)
                .write_all(&1i32.to_ne_bytes())
                .map_err(|e| Error::io("write", format!("address={} uio", self.function.address), &e)),
        }
    }

    /// Takes note of interrupts that came; true when some had.
    pub fn acknowledge(&self) -> bool {
        (&self.file).read_exact(&mut [0; 4]).is_ok()
    }
}

impl AsFd for UioDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
