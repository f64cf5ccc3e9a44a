//! RDMA verbs: queue pairs of a card that stays with the kernel, through rdma-core's libibverbs.
//!
//! The library is loaded when it is first asked for (dlopen), so that a machine without it misses nothing else. The
//! structures are declared here from `infiniband/verbs.h`; a test compares each field's place and size with that
//! header's, as a C compiler sees it, and with numbers written down in `verbs/layout.txt`.
//!
//! Every object keeps what it was made of alive, and is destroyed before that: a queue pair before its completion
//! queues, those before the device.

mod device;
mod events;
mod flow;
mod layout;
mod library;
mod objects;
mod queue_pair;
mod spread;
mod work;

#[cfg(test)]
mod tests;

pub use device::{Device, Gid, GidType, PortFacts, devices};
pub use events::Event;
pub use flow::{Flow, Target, hashed};
pub use layout::WcStatus;
pub use library::is_there;
pub use objects::{AddressHandle, CompletionChannel, CompletionQueue, Domain, MemoryRegion};
pub use queue_pair::{Capacity, Kind, QueuePair};
pub use spread::{Hashed, KEY_BYTES, Spread, WorkQueue};
pub use work::{Completion, Completions, Destination, Receives, Sends, WORK_MAX};
