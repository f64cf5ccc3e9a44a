//! Netlink: links, addresses, routes, traffic control, link events, and the netdev family.
//!
//! Every function acts on the calling thread's network namespace; a socket keeps the one it was made in.

pub mod address;
pub mod counters;
pub mod ingress;
pub mod ipv6;
pub mod lease;
pub mod link;
pub mod lookup;
pub mod message;
pub mod netdev;
pub mod netkit;
pub mod route;
pub mod socket;
pub mod standing;
pub mod tc;
pub mod vf;
pub mod watch;

#[cfg(test)]
mod any_bytes;
