//! Memory as a device addresses it: I/O addresses behind an IOMMU, physical addresses of huge pages without one.

mod faults;
mod guardian;
mod table;

pub use faults::FaultLog;
pub use guardian::Guardian;
pub use table::DmaTable;
