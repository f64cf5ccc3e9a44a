//! vhost-user: the messages by which a driver gives a device in another process its memory and its rings.
//!
//! ```text
//!   front end (the driver: virtio, QEMU)          back end (the device: vhost)
//!     SET_OWNER, GET/SET_FEATURES ------------->
//!     SET_MEM_TABLE (a descriptor a region) --->  maps it
//!     SET_VRING_NUM, _ADDR, _BASE, _KICK, _CALL > has the rings
//!     SET_VRING_ENABLE ------------------------>  moves packets, and speaks no more
//! ```
//!
//! From QEMU's docs/interop/vhost-user.rst. [`message`] knows the bytes and makes no system call; [`Link`] reads and
//! writes them on a socket.

mod inbox;
mod link;
pub mod message;
mod service;

#[cfg(test)]
mod tests;

pub use inbox::Inbox;
pub use link::Link;
pub use message::{Malformed, Message};
pub use service::{Inner, MESSAGES_A_LOOK, Service, Source, Status};

/// Requests of the front end (section "Front-end message types").
pub mod request {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// Protocol features (section "Protocol features").
pub mod protocol {
    /// Several queue pairs.
    pub const MQ: u64 = 1 << 0;
    /// Answers to requests that otherwise have none, where one is asked for.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// The MTU is told.
    pub const NET_MTU: u64 = 1 << 4;
    /// The driver's status is told.
    pub const STATUS: u64 = 1 << 16;
}

/// VHOST_USER_F_PROTOCOL_FEATURES, among the virtio feature bits.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Most regions of a memory table (without CONFIGURE_MEM_SLOTS).
pub const REGIONS_MAX: usize = 8;
