//! The only code of bifurcate that makes system calls: typed, scoped, with errors that name the call.
//!
//! Every call that has no safe wrapper in `rustix` goes through [`call`], where a test can put a
//! [`fake`] in the kernel's place.

mod aio;
pub mod bpf;
pub mod call;
pub mod card;
pub mod dma;
pub mod error;
pub mod ethtool;
pub mod event;
pub mod fake;
pub mod guard;
pub mod interface;
pub mod lock;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod pci;
pub mod process;
pub mod seqpacket;
pub mod snmp;
pub mod sockets;
pub(crate) mod sockopt;
pub mod stream;
pub mod tap;
pub mod thread;
pub mod uio;
pub mod verbs;
pub mod vfio;
pub mod xsk;

pub use error::{Error, Result};
