//! AF_PACKET: copies of the frames that pass a filter, through rings shared with the kernel; on any device.
//!
//! [`open`] makes one receiving socket a queue, joined in a fanout group, and one sending socket a queue. The
//! kernel handles the same frames too, unless the control path drops them at tc ingress.

mod open;
mod rx;
mod tx;

pub use bifurcate_linux::packet::{Fanout, Instruction};
pub use open::{Config, Filter, instructions, open};
