//! Queue pairs of an RDMA card, which stays with the kernel: raw packets brought by flow rules, or datagrams.
//!
//! ```text
//!   receive queue                                     send queue
//!     frames[slot]   the frame of each posted slot      frames[n & mask]   of each request not known to be done
//!     free           slots without one                  clean .. next      their numbers, in order
//!
//! DATA OWNERSHIP
//!   a posted frame   the card's until its completion is taken, or the queue pair is in RESET
//!   completion       written by the card: copied once; its number must be one of a posted request, its length is
//!                    checked against the frame
//!   a datagram       40 bytes of route header come in front of it: they go into the frame's headroom, unread
//! ```

mod card;
mod open;
mod pair;
mod queue;
mod rx;
mod status;
mod tx;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use open::{Carries, Config, Control, Local, Opened, Remote, open};
pub use status::{Report, Status};
