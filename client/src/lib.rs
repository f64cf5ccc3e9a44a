//! Leases of flows of a network card, or of a whole card, from `bifurcated`, for programs without any right.
//!
//! ```no_run
//! use bifurcate_client::{Broker, Request};
//!
//! # fn main() -> bifurcate_client::Result<()> {
//! let mut lease = Broker::connect()?.lease(&Request::new("eth0", &["udp dst port 53"]))?;
//! let mut batch = lease.batch(64);
//! loop {
//!     lease.wait(None)?;
//!     for queue in 0..lease.queues() {
//!         lease.receive(queue, &mut batch);
//!         for at in 0..batch.len() {
//!             println!("{} bytes", batch.size(at));
//!         }
//!         lease.send(queue, &mut batch);
//!     }
//! }
//! # }
//! ```
//!
//! What is said between the two, and what the descriptors are, stands in `control/src/protocol/PROTOCOL.md`. Nothing of
//! what a broker says is believed that the kernel can be asked: the datapath checks numbers against descriptors.
#![forbid(unsafe_code)]

mod broker;
mod error;
mod lease;
mod link;
mod message;
#[cfg(test)]
mod played;
mod received;

pub use bifurcate_datapath::engine::Handler;
pub use bifurcate_datapath::frame::{Batch, Verdict};
pub use broker::{Broker, Welcome};
pub use error::{Error, Refusal, Result};
pub use lease::{Lease, Serving};
pub use message::{
    CardMemory, Granted, Listed, Mechanism, PoolPages, Request, Transmit, WantedMechanism, ZeroCopy,
};
