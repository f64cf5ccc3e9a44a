//! Frames in, frames out: rings, the frame pool, devices and the poll loop. Knows no rule syntax, no lease.
//!
//! A frame is owned and moves: [`device::RxQueue::poll`] puts it into a [`frame::Batch`], a handler gives it a
//! [`engine::Verdict`], [`device::TxQueue::send`] or the pool takes it back. What a device or a peer can write
//! (indices, lengths, addresses) is copied once, checked, counted and dropped when wrong.
//!
//! `unsafe` is denied here and lifted in `ring`, `frame` and `device` alone. Under `cfg(loom)`, when the rings are
//! model-checked, only `ring` is there.
#![deny(unsafe_code)]

#[cfg(not(loom))]
#[allow(unsafe_code, reason = "raw memory behind UMEM")]
pub mod frame;

#[allow(unsafe_code, reason = "memory shared with the kernel or a device")]
pub mod ring;

#[cfg(not(loom))]
#[allow(unsafe_code, reason = "rings mapped from sockets and registers")]
pub mod device;

#[cfg(not(loom))]
pub mod engine;
#[cfg(not(loom))]
pub mod filter;
#[cfg(not(loom))]
pub mod vhost_user;

pub use bifurcate_linux::{Error, Result};
