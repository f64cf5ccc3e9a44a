//! Producer and consumer cursors over memory that a peer shares: the shape of AF_XDP's four rings.
//!
//! ```text
//!              consumer index (u32, free running)      producer index (u32, free running)
//!                      |                                       |
//!   slots:  [ . . . . [ filled, readable by the consumer ...... ] free, writable by the producer . . ]
//!              index & mask picks the slot; the number of slots is a power of two
//!
//! DATA OWNERSHIP
//!   producer index   written by the producer only (release), read by the consumer (acquire)
//!   consumer index   written by the consumer only (release), read by the producer (acquire)
//!   slots            [consumer, producer) belong to the consumer, the others to the producer
//!   flags            written by the kernel (need_wakeup), read by user space
//! ```
//!
//! The peer is not trusted: its index is read once a refresh, an index that claims more than the ring holds
//! counts as hostile and as "nothing there", and a slot number is always masked.

mod cursor;
mod memory;
mod sync;
#[cfg(not(loom))]
pub mod virtio;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use cursor::{Consumer, Producer};
#[cfg(not(loom))]
pub use memory::Mapped;
pub use memory::{Descriptor, Heap, Memory, Plain};
