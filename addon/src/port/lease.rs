//! Opening a lease: a port over sockets and memory that a broker passed. It asks for no right.

use bifurcate_datapath::device::{LeftToCard, af_xdp};
use bifurcate_datapath::engine::PassPath;
use bifurcate_datapath::engine::pass::TapPass;
use bifurcate_datapath::frame::{Pages, UmemConfig};
use bifurcate_linux::Result;
use bifurcate_linux::tap::TapQueue;
use napi::Env;
use napi::bindgen_prelude::ClassInstance;
use napi_derive::napi;
use std::os::fd::OwnedFd;

use super::native_port::NativePort;
use super::open::{obtained, tapped};
use super::shared::PortShared;
use crate::broker::Descriptor;
use crate::error::OrThrow;

/// What openLease is told of the descriptors: the broker's words.
#[napi(object)]
pub struct LeaseOptions {
    /// The card's name: what the port is called.
    pub name: String,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames of 68 KiB for packets longer than a frame.
    pub jumbo_frames: u32,
    /// Entries of each ring.
    pub ring_size: u32,
    /// Chunks in each fill ring.
    pub filled: u32,
    /// The sockets have tx rings.
    pub transmit: bool,
    /// The card writes into the pool itself.
    pub zero_copy: bool,
    /// Frames longer than a chunk arrive.
    pub multi_buffer: bool,
    /// The kernel says when it wants to be woken.
    pub need_wakeup: bool,
    /// Busy polling is on.
    pub busy_poll: bool,
    /// The senders behind the card leave work to it: checksums, segmentation.
    pub left_to_card: bool,
    /// The port's MTU, in bytes.
    pub mtu: u32,
    /// A pcapng file to write every received and sent frame to.
    pub tap: Option<String>,
}

/// Opens a lease. Takes the descriptors: their objects are closed afterwards, also when this fails.
/// `ways`: the queues of the return port, one for each socket, or none.
#[napi]
pub fn open_lease(
    env: Env,
    options: LeaseOptions,
    sockets: Vec<ClassInstance<'_, Descriptor>>,
    mut memory: ClassInstance<'_, Descriptor>,
    ways: Vec<ClassInstance<'_, Descriptor>>,
) -> napi::Result<NativePort> {
    let take = |all: Vec<ClassInstance<'_, Descriptor>>| {
        all.into_iter()
            .map(|mut each| each.take(&env))
            .collect::<napi::Result<Vec<_>>>()
    };
    let sockets = take(sockets)?;
    let ways = take(ways)?;
    let memory = memory.take(&env)?;
    lease_port(&options, sockets, memory, ways).or_throw(&env)
}

fn lease_port(
    options: &LeaseOptions,
    sockets: Vec<OwnedFd>,
    memory: OwnedFd,
    ways: Vec<OwnedFd>,
) -> Result<NativePort> {
    let opened = af_xdp::receive(af_xdp::Received {
        name: options.name.clone(),
        sockets,
        memory,
        pool: UmemConfig {
            frames: options.frames,
            frame_size: options.frame_size,
            jumbo_frames: options.jumbo_frames,
            pages: Pages::Auto,
        },
        ring_size: options.ring_size,
        filled: options.filled,
        transmit: options.transmit,
        obtained: af_xdp::Obtained {
            zero_copy: options.zero_copy,
            need_wakeup: options.need_wakeup,
            multi_buffer: options.multi_buffer,
            busy_poll: options.busy_poll,
            refused: Vec::new(),
        },
        left: if options.left_to_card {
            LeftToCard::EVERYTHING
        } else {
            LeftToCard::NOTHING
        },
        mtu: options.mtu,
    })?;
    let told = obtained(&opened.obtained, opened.port.umem.page_kind());
    let (port, tap) = tapped(opened.port, options.tap.as_deref(), false)?;
    let shared = PortShared::new(port, opened.sockets, tap, told.busy_poll)?;
    if !ways.is_empty() {
        let way = |fd| {
            let way = TapPass::received(TapQueue::from(fd), options.mtu);
            Box::new(way) as Box<dyn PassPath>
        };
        shared.set_pass(ways.into_iter().map(way).collect());
    }
    Ok(NativePort::new(shared, told, None))
}
