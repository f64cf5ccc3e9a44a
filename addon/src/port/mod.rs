//! The data path as JavaScript sees it: ports, their queues, and the memory that both sides work on.

mod native_port;
mod open;
mod pass;
mod queue;
mod ready;
mod run;
mod shared;
mod slot;
mod vhost_user;
