//! The ioctls of VFIO and iommufd: their numbers, and the structures they take.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::call;
use crate::{Error, Result};

/// `_IO(';', nr)`: both families count from 0x3b00 (include/uapi/linux/vfio.h, iommufd.h).
const fn number(nr: u32) -> u32 {
    (b';' as u32) << 8 | nr
}

pub(super) const GET_API_VERSION: u32 = number(100);
pub(super) const CHECK_EXTENSION: u32 = number(101);
pub(super) const SET_IOMMU: u32 = number(102);
pub(super) const GROUP_GET_STATUS: u32 = number(103);
pub(super) const GROUP_SET_CONTAINER: u32 = number(104);
pub(super) const GROUP_GET_DEVICE_FD: u32 = number(106);
pub(super) const DEVICE_GET_INFO: u32 = number(107);
pub(super) const DEVICE_GET_REGION_INFO: u32 = number(108);
pub(super) const DEVICE_GET_IRQ_INFO: u32 = number(109);
pub(super) const DEVICE_SET_IRQS: u32 = number(110);
pub(super) const DEVICE_RESET: u32 = number(111);
pub(super) const IOMMU_MAP_DMA: u32 = number(113);
pub(super) const IOMMU_UNMAP_DMA: u32 = number(114);
pub(super) const DEVICE_BIND_IOMMUFD: u32 = number(118);
pub(super) const DEVICE_ATTACH_IOMMUFD_PT: u32 = number(119);
pub(super) const IOMMUFD_IOAS_ALLOC: u32 = number(0x81);
pub(super) const IOMMUFD_IOAS_MAP: u32 = number(0x85);
pub(super) const IOMMUFD_IOAS_UNMAP: u32 = number(0x86);
pub(super) const IOMMUFD_IOAS_MAP_FILE: u32 = number(0x8f);

/// The version of the interface that there is.
pub(super) const API_VERSION: usize = 0;
/// Kinds of IOMMU: type 1, version 2; and none, which a kernel with VFIO_NOIOMMU lets root have.
pub(super) const TYPE1V2_IOMMU: usize = 3;
pub(super) const NOIOMMU_IOMMU: usize = 8;
/// `struct vfio_group_status.flags`: every function of the group is with VFIO or with nobody.
pub(super) const GROUP_VIABLE: u32 = 1;
/// `struct vfio_device_info.flags`: the device can be reset.
pub(super) const DEVICE_CAN_RESET: u32 = 1;
/// `struct vfio_region_info.flags`: mmap(2) works.
pub(super) const REGION_CAN_MMAP: u32 = 4;
/// Index of the region that is configuration space.
pub(super) const CONFIG_REGION: u32 = 7;
/// Indices of interrupts.
pub(super) const IRQ_INTX: u32 = 0;
pub(super) const IRQ_MSI: u32 = 1;
pub(super) const IRQ_MSIX: u32 = 2;
/// The kernel asks for the device: it is being unplugged, or somebody unbinds it.
pub(super) const IRQ_REQUEST: u32 = 4;
/// `struct vfio_irq_set.flags`.
pub(super) const IRQ_DATA_NONE: u32 = 1;
pub(super) const IRQ_DATA_EVENTFD: u32 = 4;
pub(super) const IRQ_ACTION_UNMASK: u32 = 16;
pub(super) const IRQ_ACTION_TRIGGER: u32 = 32;
/// What a mapping lets the device do: read and write.
pub(super) const DMA_READ_WRITE: u32 = 1 | 2;
/// As an iommufd says it: at the I/O address given, writeable, readable.
pub(super) const IOAS_FIXED_READ_WRITE: u32 = 1 | 2 | 4;

/// `struct vfio_group_status`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct GroupStatus {
    pub(super) argsz: u32,
    pub(super) flags: u32,
}

/// `struct vfio_device_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct DeviceInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) num_regions: u32,
    pub(super) num_irqs: u32,
    pub(super) cap_offset: u32,
    pub(super) pad: u32,
}

/// `struct vfio_region_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct RegionInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) cap_offset: u32,
    pub(super) size: u64,
    pub(super) offset: u64,
}

/// `struct vfio_irq_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct IrqInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) count: u32,
}

/// Most vectors that are asked for at once.
pub(super) const VECTORS_MAX: usize = 32;

/// `struct vfio_irq_set` with eventfds.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct IrqSet {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) start: u32,
    pub(super) count: u32,
    pub(super) eventfds: [i32; VECTORS_MAX],
}

/// `struct vfio_iommu_type1_dma_map`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct DmaMap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) vaddr: u64,
    pub(super) iova: u64,
    pub(super) size: u64,
}

/// `struct vfio_iommu_type1_dma_unmap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct DmaUnmap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iova: u64,
    pub(super) size: u64,
}

/// `struct vfio_device_bind_iommufd`, as 6.6 had it: later fields are beyond `argsz`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct BindIommufd {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iommufd: i32,
    pub(super) out_devid: u32,
}

/// `struct vfio_device_attach_iommufd_pt`, as 6.6 had it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct AttachIommufd {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) pt_id: u32,
}

/// `struct iommu_ioas_alloc`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct IoasAlloc {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) out_ioas_id: u32,
}

/// `struct iommu_ioas_map`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct IoasMap {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) ioas_id: u32,
    pub(super) reserved: u32,
    pub(super) user_va: u64,
    pub(super) length: u64,
    pub(super) iova: u64,
}

/// `struct iommu_ioas_map_file`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct IoasMapFile {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) ioas_id: u32,
    pub(super) fd: i32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) iova: u64,
}

/// `struct iommu_ioas_unmap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct IoasUnmap {
    pub(super) size: u32,
    pub(super) ioas_id: u32,
    pub(super) iova: u64,
    pub(super) length: u64,
}

/// An argument of an ioctl here: plain numbers, in the kernel's layout.
///
/// # Safety
/// `repr(C)`, integers only, no padding that the kernel would read as a field.
pub(super) unsafe trait Argument: Copy {}

macro_rules! arguments {
    ($($name:ident)*) => {
        $(
            // SAFETY: the struct of that name above: repr(C), integers, laid out as the header has it.
            unsafe impl Argument for $name {}
        )*
    };
}
arguments!(GroupStatus DeviceInfo RegionInfo IrqInfo IrqSet DmaMap DmaUnmap BindIommufd AttachIommufd IoasAlloc IoasMap IoasMapFile IoasUnmap);

/// Bytes of an argument, for its first field.
pub(super) fn size_of_argument<T: Argument>() -> u32 {
    size_of::<T>() as u32
}

/// An ioctl with a structure, which the kernel may fill. `name` and `what` are for the error.
pub(super) fn with<T: Argument>(
    fd: BorrowedFd<'_>,
    number: u32,
    argument: &mut T,
    name: &'static str,
    what: impl FnOnce() -> String,
) -> Result<usize> {
    let args = [
        fd.as_raw_fd() as usize,
        number as usize,
        std::ptr::from_mut(argument) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: `argument` is live, exclusive, and laid out as this ioctl wants it (Argument); the kernel writes no
    // more than the size that its first field says, which the callers set by `size_of_argument`.
    unsafe { call(libc::SYS_ioctl, args) }.map_err(|errno| Error::new(name, what(), errno))
}

/// An ioctl with a number.
pub(super) fn plain(
    fd: BorrowedFd<'_>,
    number: u32,
    value: usize,
    name: &'static str,
    what: impl FnOnce() -> String,
) -> Result<usize> {
    // SAFETY: the callers' ioctls take a plain number, no pointer (vfio.h: GET_API_VERSION, CHECK_EXTENSION,
    // SET_IOMMU, DEVICE_RESET).
    unsafe {
        call(
            libc::SYS_ioctl,
            [fd.as_raw_fd() as usize, number as usize, value, 0, 0, 0],
        )
    }
    .map_err(|errno| Error::new(name, what(), errno))
}

/// An ioctl that reads a C string.
pub(super) fn with_text(
    fd: BorrowedFd<'_>,
    number: u32,
    text: &std::ffi::CStr,
    name: &'static str,
    what: impl FnOnce() -> String,
) -> Result<usize> {
    let args = [
        fd.as_raw_fd() as usize,
        number as usize,
        text.as_ptr() as usize,
        0,
        0,
        0,
    ];
    // SAFETY: GROUP_GET_DEVICE_FD reads a string that ends with a NUL; `text` is one and lives through the call.
    unsafe { call(libc::SYS_ioctl, args) }.map_err(|errno| Error::new(name, what(), errno))
}
