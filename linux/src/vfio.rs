//! VFIO: a PCI function in the hands of a process, its memory accesses held by the IOMMU to what the process maps.
//!
//! Two ways in: the group and its container (`/dev/vfio/N`), and the device's own file with an I/O address space of
//! iommufd (`/dev/vfio/devices/vfioN`, `/dev/iommu`). Numbers and layouts: include/uapi/linux/vfio.h and iommufd.h.

mod device;
mod lend;
mod space;
mod uapi;

pub use device::{VfioDevice, VfioInterrupts};
pub use lend::{Loan, is_held, is_open, lend};
pub use space::{AddressSpace, open_cdev, open_group};
