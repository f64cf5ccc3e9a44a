//! Configuration space: what every PCI function has, whatever its driver (PCI Local Bus 3.0, chapter 6).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::{Error, Result};

/// Offset of the Command register (PCI 3.0, 6.2.2).
const COMMAND: u64 = 0x04;
/// Command: answer to memory accesses.
const MEMORY_SPACE: u16 = 1 << 1;
/// Command: may read and write the host's memory.
const BUS_MASTER: u16 = 1 << 2;
/// Command: no INTx.
const INTX_DISABLE: u16 = 1 << 10;
/// Offset of the Status register; bit 4: there is a list of capabilities (PCI 3.0, 6.2.3).
const STATUS: u64 = 0x06;
/// Offset of the pointer to the first capability (PCI 3.0, 6.7).
const CAPABILITIES: u64 = 0x34;
/// Most capabilities that 256 bytes can hold: the end of a list that a device has bent into a ring.
const CAPABILITIES_MAX: usize = 48;
/// Capability identifiers (PCI 3.0, appendix H).
const CAPABILITY_MSIX: u8 = 0x11;

/// One entry of the list of capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its identifier.
    pub id: u8,
    /// Where it begins in configuration space.
    pub offset: u8,
    /// Its bytes from there on, as far as the first 256 bytes of configuration space go, 24 at most.
    pub bytes: Vec<u8>,
}

/// A function's configuration space: a range of a file.
#[derive(Debug)]
pub struct ConfigSpace {
    file: File,
    base: u64,
    name: String,
}

impl ConfigSpace {
    /// The configuration space that begins at `base` of `fd`; `name` is for errors.
    #[must_use]
    pub fn new(fd: OwnedFd, base: u64, name: String) -> ConfigSpace {
        ConfigSpace {
            file: File::from(fd),
            base,
            name,
        }
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// Whatever pread(2) reports; `EIO` at the end.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, self.base + offset).map_err(|e| {
            Error::io(
                "pread",
                format!("{} configuration space at {offset:#x}", self.name),
                &e,
            )
        })
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// Whatever pwrite(2) reports.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.base + offset).map_err(|e| {
            Error::io(
                "pwrite",
                format!("{} configuration space at {offset:#x}", self.name),
                &e,
            )
        })
    }

    /// Reads a 16-bit register.
    ///
    /// # Errors
    /// As [`ConfigSpace::read`].
    pub fn read16(&self, offset: u64) -> Result<u16> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// The capabilities, in the order of the list.
    ///
    /// # Errors
    /// As [`ConfigSpace::read`].
    pub fn capabilities(&self) -> Result<Vec<Capability>> {
        let mut all = [0u8; 256];
        // An unprivileged reader gets 64 bytes, and would see no capability.
        self.read(0, &mut all)?;
        let mut found = Vec::new();
        if all[STATUS as usize] & 0x10 == 0 {
            return Ok(found);
        }
        let mut next = all[CAPABILITIES as usize] & !3;
        while next >= 0x40 && found.len() < CAPABILITIES_MAX {
            let at = usize::from(next);
            found.push(Capability {
                id: all[at],
                offset: next,
                bytes: all[at..(at + 24).min(256)].to_vec(),
            });
            next = all[at + 1] & !3;
        }
        Ok(found)
    }

    /// Number of MSI-X vectors the function has; 0 without MSI-X (PCI 3.0, 6.8.2.3).
    ///
    /// # Errors
    /// As [`ConfigSpace::read`].
    pub fn msix_vectors(&self) -> Result<u32> {
        let all = self.capabilities()?;
        let msix = all.iter().find(|capability| capability.id == CAPABILITY_MSIX);
        Ok(msix.map_or(0, |msix| {
            u32::from(u16::from_le_bytes([msix.bytes[2], msix.bytes[3]]) & 0x7ff) + 1
        }))
    }

    /// Lets the function read and write the host's memory, or stops it. When this returns after a stop, what it
    /// had under way has arrived: the register is read back, which passes no write of the function.
    ///
    /// # Errors
    /// As [`ConfigSpace::write`].
    pub fn set_bus_master(&self, on: bool) -> Result<()> {
        let command = self.read16(COMMAND)?;
        let wanted = if on {
            command | BUS_MASTER | MEMORY_SPACE
        } else {
            command & !BUS_MASTER
        };
        self.write(COMMAND, &wanted.to_le_bytes())?;
        self.read16(COMMAND).map(drop)
    }

    /// Whether the function may read and write the host's memory.
    ///
    /// # Errors
    /// As [`ConfigSpace::read`].
    pub fn is_bus_master(&self) -> Result<bool> {
        Ok(self.read16(COMMAND)? & BUS_MASTER != 0)
    }

    /// Lets the function raise its interrupt line, or not.
    ///
    /// # Errors
    /// As [`ConfigSpace::write`].
    pub fn set_intx(&self, on: bool) -> Result<()> {
        let command = self.read16(COMMAND)?;
        let wanted = if on {
            command & !INTX_DISABLE
        } else {
            command | INTX_DISABLE
        };
        self.write(COMMAND, &wanted.to_le_bytes())
    }
}

impl AsFd for ConfigSpace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(bytes: &[u8]) -> ConfigSpace {
        let memfd = rustix::fs::memfd_create("bf-config", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&memfd, bytes, 0).unwrap();
        ConfigSpace::new(memfd, 0, "test".to_owned())
    }

    #[test]
    fn capabilities_are_walked_and_a_ring_of_them_ends() {
        let mut bytes = [0u8; 256];
        bytes[6] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40..0x44].copy_from_slice(&[CAPABILITY_MSIX, 0x50, 9, 0]);
        bytes[0x50..0x52].copy_from_slice(&[0x09, 0x40]);
        let config = space(&bytes);
        let found = config.capabilities().unwrap();
        assert_eq!(found.len(), CAPABILITIES_MAX);
        assert_eq!(
            (found[0].id, found[1].id, found[1].offset),
            (CAPABILITY_MSIX, 9, 0x50)
        );
        assert_eq!(config.msix_vectors().unwrap(), 10);
    }

    #[test]
    fn bus_mastering_is_one_bit_and_the_others_stay() {
        let mut bytes = [0u8; 256];
        bytes[4] = 0x41;
        let config = space(&bytes);
        config.set_bus_master(true).unwrap();
        assert_eq!(config.read16(COMMAND).unwrap(), 0x47);
        assert!(config.is_bus_master().unwrap());
        config.set_bus_master(false).unwrap();
        config.set_intx(false).unwrap();
        assert_eq!(config.read16(COMMAND).unwrap(), 0x443);
    }
}
