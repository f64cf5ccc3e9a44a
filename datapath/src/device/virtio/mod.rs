//! The virtio network driver over a vhost-user socket: the device is another process.
//!
//! See README.md.

mod open;
mod packets;
mod queue;
mod rx;
mod session;
mod tx;

#[cfg(test)]
mod tests;

pub use open::{Config, Opened, attach, open};
