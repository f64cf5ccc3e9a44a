//! What sysfs says of a PCI function: its ids, driver, IOMMU group, memory, interfaces and virtual functions.

use std::fs;
use std::path::{Path, PathBuf};

use super::Address;
use crate::{Error, Result};

/// The PCI bus as sysfs shows it.
#[derive(Clone, Debug)]
pub struct Bus {
    root: PathBuf,
}

/// One function on the bus.
#[derive(Clone, Debug)]
pub struct Function {
    pub(super) bus: Bus,
    /// Where it sits.
    pub address: Address,
}

/// An IOMMU group: what cannot be told apart by the IOMMU, and so can only be given away together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub number: u32,
    /// Every function in it, in order.
    pub members: Vec<Address>,
}

/// One base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Bytes; 0 when there is none.
    pub len: u64,
    /// Memory, not I/O ports (`IORESOURCE_MEM`, include/linux/ioport.h).
    pub is_memory: bool,
}

/// A physical function's virtual functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// Most it can have.
    pub total: u32,
    /// Those there are now, in the order of their numbers.
    pub functions: Vec<Address>,
}

impl Bus {
    /// This machine's bus.
    #[must_use]
    pub fn system() -> Bus {
        Bus::at("/sys/bus/pci")
    }

    /// A bus in another place: a folder laid out like `/sys/bus/pci`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Bus {
        Bus { root: root.into() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Every function, in the order of their addresses.
    ///
    /// # Errors
    /// `ENOENT` on a machine without PCI.
    pub fn functions(&self) -> Result<Vec<Function>> {
        let folder = self.root.join("devices");
        let entries = fs::read_dir(&folder).map_err(|e| Error::io("open", path(&folder), &e))?;
        let mut all: Vec<Address> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        all.sort_unstable();
        let function = |address| Function {
            bus: self.clone(),
            address,
        };
        Ok(all.into_iter().map(function).collect())
    }

    /// The function at `address`.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn function(&self, address: Address) -> Result<Function> {
        let found = Function {
            bus: self.clone(),
            address,
        };
        if found.folder().exists() {
            Ok(found)
        } else {
            Err(Error::new(
                "pci",
                format!("address={address}: there is no such function"),
                libc::ENODEV,
            ))
        }
    }

    /// Whether the kernel has that driver now.
    #[must_use]
    pub fn has_driver(&self, name: &str) -> bool {
        self.root.join("drivers").join(name).exists()
    }
}

impl Function {
    /// Another function of the same bus, there or not.
    #[must_use]
    pub fn sibling(&self, address: Address) -> Function {
        Function {
            bus: self.bus.clone(),
            address,
        }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.bus.root.join("devices").join(self.address.to_string())
    }

    /// Vendor and device id.
    ///
    /// # Errors
    /// Whatever reading the files reports.
    pub fn ids(&self) -> Result<(u16, u16)> {
        Ok((self.hex("vendor")? as u16, self.hex("device")? as u16))
    }

    /// Class, subclass and interface, e.g. 0x020000 for an Ethernet controller.
    ///
    /// # Errors
    /// Whatever reading the file reports.
    pub fn class(&self) -> Result<u32> {
        self.hex("class")
    }

    /// The driver that has it; none when nobody has.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        link_name(&self.folder().join("driver"))
    }

    /// Its IOMMU group; none when no IOMMU stands before it.
    ///
    /// # Errors
    /// Whatever reading the folder reports.
    pub fn group(&self) -> Result<Option<Group>> {
        let link = self.folder().join("iommu_group");
        let Some(number) = link_name(&link).and_then(|name| name.parse().ok()) else {
            return Ok(None);
        };
        let folder = link.join("devices");
        let entries = fs::read_dir(&folder).map_err(|e| Error::io("open", path(&folder), &e))?;
        let mut members: Vec<Address> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        members.sort_unstable();
        Ok(Some(Group { number, members }))
    }

    /// Base address register `bar` (0 to 5).
    ///
    /// # Errors
    /// Whatever reading the file reports; `EINVAL` when it has no such line.
    pub fn resource(&self, bar: usize) -> Result<Resource> {
        let text = self.read("resource")?;
        let line = text.lines().nth(bar).filter(|_| bar < 6);
        let mut words = line
            .unwrap_or_default()
            .split_whitespace()
            .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let (Some(Some(start)), Some(Some(end)), Some(Some(flags))) =
            (words.next(), words.next(), words.next())
        else {
            return Err(Error::new(
                "pci",
                format!("address={} bar={bar}", self.address),
                libc::EINVAL,
            ));
        };
        Ok(Resource {
            len: if end > start { end - start + 1 } else { 0 },
            is_memory: flags & 0x200 != 0,
        })
    }

    /// Whether the kernel has an interrupt for it: its line's, or one of those that its driver switched on.
    #[must_use]
    pub fn has_interrupt(&self) -> bool {
        // A virtual function has no line; `msi_irqs` has what a driver has switched on of MSI and MSI-X.
        self.read("irq").is_ok_and(|text| text.trim() != "0") || !self.children("msi_irqs").is_empty()
    }

    /// The network interfaces that its driver made, in order.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        self.children("net")
    }

    /// The interfaces of a virtio card hang one folder deeper, below the virtio device.
    #[must_use]
    pub fn virtio_interfaces(&self) -> Vec<String> {
        let below = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let virtio = below.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"));
        let mut all: Vec<String> = virtio
            .flat_map(|entry| names(&entry.path().join("net")))
            .collect();
        all.sort_unstable();
        all
    }

    /// The names in the folder `name` of the function, e.g. `uio` or `vfio-dev`, in order.
    #[must_use]
    pub fn children(&self, name: &str) -> Vec<String> {
        names(&self.folder().join(name))
    }

    /// Its virtual functions; none when it can have none.
    #[must_use]
    pub fn sriov(&self) -> Option<Sriov> {
        let total: u32 = self.read("sriov_totalvfs").ok()?.trim().parse().ok()?;
        let functions = (0..total)
            .map_while(|n| link_name(&self.folder().join(format!("virtfn{n}")))?.parse().ok())
            .collect();
        Some(Sriov { total, functions })
    }

    /// The physical function that it is a virtual function of.
    #[must_use]
    pub fn physical_function(&self) -> Option<Address> {
        link_name(&self.folder().join("physfn"))?.parse().ok()
    }

    pub(super) fn read(&self, name: &str) -> Result<String> {
        let file = self.folder().join(name);
        fs::read_to_string(&file).map_err(|e| Error::io("read", path(&file), &e))
    }

    fn hex(&self, name: &str) -> Result<u32> {
        let text = self.read(name)?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).map_err(|_| {
            Error::new(
                "read",
                format!("address={} {name}={text}", self.address),
                libc::EBADMSG,
            )
        })
    }
}

pub(super) fn path(path: &Path) -> String {
    format!("path={}", path.display())
}

fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    all.sort_unstable();
    all
}
