//! AF_XDP: frames that an XDP program redirects to a socket, through four rings shared with the kernel.
//!
//! [`open`] makes one socket a queue over one frame pool, fills the fill rings, binds, and says what was
//! really obtained. Steering frames to the sockets (an XSKMAP and its program) is the control path's work.

mod bind;
mod lease;
mod metadata;
mod open;
mod rx;
mod silent;
mod socket;
mod tx;

pub use bind::{Mode, ZeroCopy};
pub use lease::{Granted, Received, grant, is_held, receive};
pub use open::{BusyPoll, Config, Obtained, Opened, open};
pub use socket::QueueSocket;
