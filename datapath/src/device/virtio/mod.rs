//! The virtio network driver: over a vhost-user socket, where the device is another process, and over PCI, where it is
//! a card ([`pci`]).
//!
//! See README.md.

mod open;
mod packets;
pub mod pci;
mod queue;
mod rings;
mod rx;
mod session;
mod transport;
mod tx;

#[cfg(test)]
mod tests;

pub use open::{Config, Opened, attach, open};
