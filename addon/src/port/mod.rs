//! The data path as JavaScript sees it: ports, their queues, and the memory that both sides work on.

mod card;
mod lease;
mod native_port;
pub(crate) mod open;
mod open_pci;
mod pass;
mod queue;
pub(crate) mod ready;
mod run;
mod shared;
mod slot;
mod verbs;
mod vhost_user;
