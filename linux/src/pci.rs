//! PCI functions through sysfs: who drives one, taking it from its driver and giving it back, its configuration space
//! and its registers.

mod address;
mod bar;
mod bind;
mod config;
mod facts;
mod lock;
#[cfg(test)]
mod tests;

pub use address::Address;
pub use bar::Bar;
pub use config::{Capability, ConfigSpace};
pub use facts::{Bus, Function, Group, Resource, Sriov};
