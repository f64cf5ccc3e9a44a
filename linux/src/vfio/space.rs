//! I/O address spaces: what a device may reach. A container's, an iommufd's, or none: physical addresses.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::device::VfioDevice;
use super::uapi::{
    API_VERSION, AttachIommufd, BindIommufd, CHECK_EXTENSION, DEVICE_ATTACH_IOMMUFD_PT, DEVICE_BIND_IOMMUFD,
    DMA_READ_WRITE, DmaMap, DmaUnmap, GET_API_VERSION, GROUP_GET_DEVICE_FD, GROUP_GET_STATUS,
    GROUP_SET_CONTAINER, GROUP_VIABLE, GroupStatus, IOAS_FIXED_READ_WRITE, IOMMU_MAP_DMA, IOMMU_UNMAP_DMA,
    IOMMUFD_IOAS_ALLOC, IOMMUFD_IOAS_MAP, IOMMUFD_IOAS_MAP_FILE, IOMMUFD_IOAS_UNMAP, IoasAlloc, IoasMap,
    IoasMapFile, IoasUnmap, NOIOMMU_IOMMU, SET_IOMMU, TYPE1V2_IOMMU, plain, size_of_argument, with,
    with_text,
};
use crate::memory::{Mapping, MemoryFile};
use crate::pci::{Address, Function, Group};
use crate::{Error, Result};

/// What stands between a device and the host's memory. Closed, it takes every mapping with it.
#[derive(Debug)]
pub enum AddressSpace {
    /// A VFIO container with one group.
    Container {
        /// `/dev/vfio/vfio`.
        container: OwnedFd,
        /// `/dev/vfio/N`: the container has an IOMMU for as long as a group is in it.
        group: OwnedFd,
    },
    /// An I/O address space of an iommufd.
    Iommufd {
        /// `/dev/iommu`.
        iommufd: OwnedFd,
        /// The space's id.
        ioas: u32,
    },
    /// Nothing: the device reaches all memory, by physical addresses. The container and group are held open.
    None {
        /// `/dev/vfio/vfio`.
        container: OwnedFd,
        /// `/dev/vfio/noiommu-N`.
        group: OwnedFd,
    },
}

impl AddressSpace {
    /// Whether the device reaches only what is mapped.
    #[must_use]
    pub fn protects(&self) -> bool {
        !matches!(self, AddressSpace::None { .. })
    }

    /// Lets the device read and write `len` bytes of `mapping` at I/O address `iova`. Nothing to do where nothing
    /// protects.
    ///
    /// # Errors
    /// `ENOMEM` when the process may lock no more memory; `EINVAL` for addresses that the IOMMU cannot map.
    pub fn map(&self, mapping: &Mapping, len: usize, iova: u64) -> Result<()> {
        let len = len.min(mapping.len());
        let what = || format!("iova={iova:#x} len={len}");
        let vaddr = mapping.base().as_ptr() as u64;
        match self {
            AddressSpace::Container { container, .. } => {
                let mut map = DmaMap {
                    argsz: size_of_argument::<DmaMap>(),
                    flags: DMA_READ_WRITE,
                    vaddr,
                    iova,
                    size: len as u64,
                };
                with(
                    container.as_fd(),
                    IOMMU_MAP_DMA,
                    &mut map,
                    "ioctl(VFIO_IOMMU_MAP_DMA)",
                    what,
                )?;
            }
            AddressSpace::Iommufd { iommufd, ioas } => {
                let mut map = IoasMap {
                    size: size_of_argument::<IoasMap>(),
                    flags: IOAS_FIXED_READ_WRITE,
                    ioas_id: *ioas,
                    reserved: 0,
                    user_va: vaddr,
                    length: len as u64,
                    iova,
                };
                with(
                    iommufd.as_fd(),
                    IOMMUFD_IOAS_MAP,
                    &mut map,
                    "ioctl(IOMMU_IOAS_MAP)",
                    what,
                )?;
            }
            AddressSpace::None { .. } => {}
        }
        Ok(())
    }

    /// As [`AddressSpace::map`], all of a memory file, which this process need not have mapped afterwards.
    ///
    /// An iommufd is given the file and not addresses of this process: it pins pages anew whenever a device is attached
    /// anew, which whoever has the device may do, and would then find whatever lies at those addresses by then. A
    /// container pins once, here.
    ///
    /// # Errors
    /// As [`AddressSpace::map`]; `ENOTTY` from an iommufd before 6.13; `ENOTSUP` where nothing protects.
    pub fn map_file(&self, file: &MemoryFile, iova: u64) -> Result<()> {
        let what = || format!("iova={iova:#x} memfd len={}", file.len());
        match self {
            AddressSpace::Container { .. } => self.map(&Mapping::shared(file)?, file.len(), iova),
            AddressSpace::Iommufd { iommufd, ioas } => {
                let mut map = IoasMapFile {
                    size: size_of_argument::<IoasMapFile>(),
                    flags: IOAS_FIXED_READ_WRITE,
                    ioas_id: *ioas,
                    fd: file.as_fd().as_raw_fd(),
                    start: 0,
                    length: file.len() as u64,
                    iova,
                };
                with(
                    iommufd.as_fd(),
                    IOMMUFD_IOAS_MAP_FILE,
                    &mut map,
                    "ioctl(IOMMU_IOAS_MAP_FILE)",
                    what,
                )
                .map(drop)
            }
            AddressSpace::None { .. } => Err(Error::new("vfio", what(), libc::ENOTSUP)),
        }
    }

    /// Takes a mapping back.
    ///
    /// # Errors
    /// `ENOENT` or `EINVAL` when nothing is mapped there.
    pub fn unmap(&self, iova: u64, len: usize) -> Result<()> {
        let what = || format!("iova={iova:#x} len={len}");
        match self {
            AddressSpace::Container { container, .. } => {
                let mut unmap = DmaUnmap {
                    argsz: size_of_argument::<DmaUnmap>(),
                    flags: 0,
                    iova,
                    size: len as u64,
                };
                with(
                    container.as_fd(),
                    IOMMU_UNMAP_DMA,
                    &mut unmap,
                    "ioctl(VFIO_IOMMU_UNMAP_DMA)",
                    what,
                )?;
            }
            AddressSpace::Iommufd { iommufd, ioas } => {
                let mut unmap = IoasUnmap {
                    size: size_of_argument::<IoasUnmap>(),
                    ioas_id: *ioas,
                    iova,
                    length: len as u64,
                };
                with(
                    iommufd.as_fd(),
                    IOMMUFD_IOAS_UNMAP,
                    &mut unmap,
                    "ioctl(IOMMU_IOAS_UNMAP)",
                    what,
                )?;
            }
            AddressSpace::None { .. } => {}
        }
        Ok(())
    }
}

/// Opens a function through its group. Without an IOMMU, when `protected` is false, through its no-IOMMU group.
///
/// # Errors
/// `ENXIO` when it is in no group; `EBUSY` when another process has the group; `EPERM` when another function of
/// the group is with a kernel driver (named in the error).
pub fn open_group(function: &Function, protected: bool) -> Result<(AddressSpace, VfioDevice)> {
    let (space, device) = group_device(function, protected)?;
    Ok((space, VfioDevice::new(device, function.address)?))
}

/// As [`open_group`], the device's bare descriptor.
pub(super) fn group_device(function: &Function, protected: bool) -> Result<(AddressSpace, OwnedFd)> {
    let address = function.address;
    let Some(members) = function.group()? else {
        let why = format!("address={address}: it is in no IOMMU group");
        return Err(Error::new("vfio", why, libc::ENXIO));
    };
    let node = if protected { "" } else { "noiommu-" };
    let group = open(
        PathBuf::from(format!("/dev/vfio/{node}{}", members.number)),
        address,
    )?;
    let mut status = GroupStatus {
        argsz: size_of_argument::<GroupStatus>(),
        flags: 0,
    };
    let what = || format!("address={address} group={}", members.number);
    with(
        group.as_fd(),
        GROUP_GET_STATUS,
        &mut status,
        "ioctl(VFIO_GROUP_GET_STATUS)",
        what,
    )?;
    if status.flags & GROUP_VIABLE == 0 {
        let why = format!("address={address} {}", shared_with(function, &members));
        return Err(Error::new("vfio", why, libc::EPERM));
    }
    let container = open(PathBuf::from("/dev/vfio/vfio"), address)?;
    let version = plain(
        container.as_fd(),
        GET_API_VERSION,
        0,
        "ioctl(VFIO_GET_API_VERSION)",
        what,
    )?;
    let kind = if protected { TYPE1V2_IOMMU } else { NOIOMMU_IOMMU };
    let known = plain(
        container.as_fd(),
        CHECK_EXTENSION,
        kind,
        "ioctl(VFIO_CHECK_EXTENSION)",
        what,
    )?;
    if version != API_VERSION || known == 0 {
        let why = format!("address={address}: this kernel's VFIO has no IOMMU of kind {kind}");
        return Err(Error::new("vfio", why, libc::EOPNOTSUPP));
    }
    let mut fd = Number(container.as_raw_fd());
    with(
        group.as_fd(),
        GROUP_SET_CONTAINER,
        &mut fd,
        "ioctl(VFIO_GROUP_SET_CONTAINER)",
        what,
    )?;
    plain(container.as_fd(), SET_IOMMU, kind, "ioctl(VFIO_SET_IOMMU)", what)?;
    let name = CString::new(address.to_string()).expect("an address has no NUL");
    let device = with_text(
        group.as_fd(),
        GROUP_GET_DEVICE_FD,
        &name,
        "ioctl(VFIO_GROUP_GET_DEVICE_FD)",
        what,
    )?;
    // SAFETY: the kernel just made this descriptor for us; nobody else has it.
    let device = unsafe { OwnedFd::from_raw_fd(device as i32) };
    let (container, group) = (container.into(), group.into());
    let space = if protected {
        AddressSpace::Container { container, group }
    } else {
        AddressSpace::None { container, group }
    };
    Ok((space, device))
}

/// A bare descriptor as an argument.
#[repr(C)]
#[derive(Clone, Copy)]
struct Number(i32);

// SAFETY: one i32, what GROUP_SET_CONTAINER reads.
unsafe impl super::uapi::Argument for Number {}

/// Opens a function by its own file, in an address space of a new iommufd.
///
/// # Errors
/// `ENOENT` when the kernel has no iommufd or no file for the function (IOMMUFD, VFIO_DEVICE_CDEV: 6.6 and
/// newer); `EBUSY` when another process has it.
pub fn open_cdev(function: &Function) -> Result<(AddressSpace, VfioDevice)> {
    let (space, device) = cdev_device(function)?;
    Ok((space, VfioDevice::new(device, function.address)?))
}

/// As [`open_cdev`], the device's bare descriptor.
pub(super) fn cdev_device(function: &Function) -> Result<(AddressSpace, OwnedFd)> {
    let address = function.address;
    let Some(name) = function.children("vfio-dev").into_iter().next() else {
        let why =
            format!("address={address}: the kernel shows no file of its own for it (VFIO_DEVICE_CDEV, 6.6)");
        return Err(Error::new("vfio", why, libc::ENOENT));
    };
    let iommufd = open(PathBuf::from("/dev/iommu"), address)?;
    let device: OwnedFd = open(PathBuf::from("/dev/vfio/devices").join(name), address)?.into();
    let what = || format!("address={address}");
    let mut bind = BindIommufd {
        argsz: size_of_argument::<BindIommufd>(),
        flags: 0,
        iommufd: iommufd.as_raw_fd(),
        out_devid: 0,
    };
    with(
        device.as_fd(),
        DEVICE_BIND_IOMMUFD,
        &mut bind,
        "ioctl(VFIO_DEVICE_BIND_IOMMUFD)",
        what,
    )?;
    let mut alloc = IoasAlloc {
        size: size_of_argument::<IoasAlloc>(),
        ..IoasAlloc::default()
    };
    with(
        iommufd.as_fd(),
        IOMMUFD_IOAS_ALLOC,
        &mut alloc,
        "ioctl(IOMMU_IOAS_ALLOC)",
        what,
    )?;
    let mut attach = AttachIommufd {
        argsz: size_of_argument::<AttachIommufd>(),
        flags: 0,
        pt_id: alloc.out_ioas_id,
    };
    with(
        device.as_fd(),
        DEVICE_ATTACH_IOMMUFD_PT,
        &mut attach,
        "ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT)",
        what,
    )?;
    let space = AddressSpace::Iommufd {
        iommufd: iommufd.into(),
        ioas: alloc.out_ioas_id,
    };
    Ok((space, device))
}

/// Opens one of VFIO's files, for the function at `address`.
pub(super) fn open(path: PathBuf, address: Address) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| Error::io("open", format!("address={address} path={}", path.display()), &e))
}

/// Who else is in the group and with a kernel driver.
fn shared_with(function: &Function, group: &Group) -> String {
    let others: Vec<String> = group
        .members
        .iter()
        .filter(|member| **member != function.address)
        .filter_map(|member| {
            let other = function.sibling(*member);
            Some(format!("{member} ({})", other.driver()?))
        })
        .collect();
    format!("group={}: shared with {}", group.number, others.join(", "))
}
