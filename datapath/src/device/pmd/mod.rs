//! What our own drivers stand on: one descriptor-ring engine, registers as rows, start-up as a page of steps.
//!
//! No device itself, so that devices may import it and never one another. A driver adds a table of registers, a page
//! of steps and the words of a transmit descriptor.
//!
//! ```text
//!   receive ring, `size` slots of 16 bytes          transmit ring, `size` slots of 16 bytes
//!
//!     next          tail = next - 1 - held            clean        next = tail
//!      |             |                                  |            |
//!   [..D D D D . . . . . . . . . . . (held) ..]       [ . R . . R . . | free ............ ]
//!      done, unread   the device's       ours            the device's    ours
//!
//! DATA OWNERSHIP
//!   descriptor   the device's from the doorbell that covers it until it sets DD; ours before and after
//!   frame        every slot of a receive ring has one, in `frames`; what a descriptor says of addresses is never read
//!   length       written by the device: copied once, checked against the frame's chunk
//!   tail         written by us alone; the device's head is never read
//!   D: DD is set (done).  R: asks for DD when it is done (RS); one a doorbell.
//! ```

mod counting;
mod dma;
mod nic;
mod open;
pub(crate) mod registers;
mod rx;
mod steps;
mod tx;
mod waking;
mod words;
#[cfg(feature = "wrong-dma")]
pub mod wrong;

#[cfg(any(test, feature = "model"))]
pub mod model;

pub use counting::Counting;
pub use dma::{Pool, Slots};
pub use nic::{Filter, Link, Nic, Presence, Quiet, Statistic};
pub use open::{Config, RSS_KEY, RingAddresses, Rings, build};
pub(crate) use registers::registers;
pub use registers::{ReadClear, ReadOnly, ReadWrite, Register, Registers, Row, WriteOnly};
pub use steps::{Step, walk};
pub use waking::{Interrupts, Waking};
pub use words::{ADVANCED, LEGACY, LONGEST, TransmitWords};
