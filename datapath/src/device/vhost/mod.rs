//! The device end of vhost-user: a port that a QEMU guest, DPDK's virtio-user or the driver of this project attaches to.
//!
//! See README.md.

mod memory;
mod open;
mod queue;
mod rx;
mod session;
mod tx;

#[cfg(test)]
mod tests;

pub use open::{Config, Opened, attach, open};
pub use session::Session;
