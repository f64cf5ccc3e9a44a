//! Opening devices: options as JavaScript gives them, turned into what the datapath takes.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use bifurcate_datapath::device::show::Show;
use bifurcate_datapath::device::tap::Tap;
use bifurcate_datapath::device::{Port, af_packet, af_xdp, loopback};
use bifurcate_datapath::engine::borrow_senders;
use bifurcate_datapath::frame::{PageKind, Pages, Umem, UmemConfig};
use bifurcate_linux::netns::Netns;
use bifurcate_linux::{Error, Result, interface};
use napi::Env;
use napi_derive::napi;

use super::native_port::NativePort;
use super::shared::PortShared;
use crate::error::OrThrow;
use crate::kernel;

const EINVAL: i32 = 22;
/// Bytes of a frame that a capture keeps: libpcap's largest.
const SNAPLEN: u32 = 262_144;

/// What openAfXdp is asked for.
#[napi(object)]
pub struct AfXdpOptions {
    /// The interface's name.
    pub ifname: String,
    /// The queues to bind a socket to.
    pub queues: Vec<u32>,
    /// How many of the card's queues send: the kernel drops what is sent by a socket of a queue from this number on
    /// (net/xdp/xsk.c __xsk_generic_xmit()), so those send by the queues before it. All when left out.
    pub senders: Option<u32>,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames of 68 KiB for packets longer than a frame; with any, multi-buffer is asked for.
    pub jumbo_frames: u32,
    /// "require", "prefer" or "off".
    pub zero_copy: String,
    /// Where the XDP program runs: "driver" or "generic".
    pub mode: String,
    /// Never sleep: the handler's turns drive the device.
    pub busy_poll: bool,
    /// The XDP program leaves what the driver says of a frame in front of it.
    pub metadata: bool,
    /// "auto", "huge" or "ordinary".
    pub pages: String,
    /// A pcapng file to write every received and sent frame to.
    pub tap: Option<String>,
    /// Add to that file what a port before this one has begun.
    pub tap_append: Option<bool>,
    /// Show every received and sent frame to tcpdump, on an interface made for that.
    pub show: Option<bool>,
    /// Entries of each ring, a power of two.
    pub ring_size: u32,
}

/// What openLoopback is asked for.
#[napi(object)]
pub struct LoopbackOptions {
    /// Number of queues.
    pub queues: u32,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Bytes of each packet that it makes.
    pub length: u32,
    /// "hot": the frame freed last comes next; "cold": a walk through the pool.
    pub order: String,
}

/// What a device really gave.
#[napi(object)]
#[derive(Clone)]
pub struct Obtained {
    /// The device writes into the pool itself (read back with XDP_OPTIONS).
    pub zero_copy: bool,
    /// The kernel says when it wants to be woken.
    pub need_wakeup: bool,
    /// Packets longer than a frame arrive, and can be sent.
    pub multi_buffer: bool,
    /// Busy polling is on.
    pub busy_poll: bool,
    /// What the pool stands in: "huge" or "ordinary" pages.
    pub pages: String,
    /// Why a better way was refused, for each that was tried.
    pub refused: Vec<String>,
    /// The interface on which tcpdump sees the frames, where that was asked for and could be had.
    pub tap: Option<String>,
}

/// What openAfPacket is asked for.
#[napi(object)]
pub struct AfPacketOptions {
    /// The interface's name.
    pub ifname: String,
    /// Number of queues: members of the fanout group.
    pub queues: u32,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames of 68 KiB for packets longer than a frame.
    pub jumbo_frames: u32,
    /// Have the kernel work out each frame's flow hash.
    pub hash: bool,
    /// "auto", "huge" or "ordinary".
    pub pages: String,
    /// A pcapng file to write every received and sent frame to.
    pub tap: Option<String>,
    /// Add to that file what a port before this one has begun.
    pub tap_append: Option<bool>,
    /// Show every received and sent frame to tcpdump, on an interface made for that.
    pub show: Option<bool>,
}

/// Opens packet sockets over one new pool. A socket filter program says which frames they take; the kernel handles
/// the same frames too, unless a program at tc ingress drops them there.
#[napi]
pub fn open_af_packet(
    env: Env,
    netns: &kernel::Netns,
    options: AfPacketOptions,
    filter: &kernel::Program,
) -> napi::Result<NativePort> {
    let filter = af_packet::Filter::Program(filter.program(&env)?.as_fd());
    af_packet_port(netns.netns(&env)?, &options, filter).or_throw(&env)
}

fn af_packet_port(
    netns: Arc<Netns>,
    options: &AfPacketOptions,
    filter: af_packet::Filter<'_>,
) -> Result<NativePort> {
    let umem = Umem::map(&UmemConfig {
        frames: options.frames,
        frame_size: options.frame_size,
        jumbo_frames: options.jumbo_frames,
        pages: pages(&options.pages)?,
    })?;
    let mut config = af_packet::Config {
        queues: options.queues,
        ..af_packet::Config::new(&options.ifname, filter)
    };
    config.receive.hash = options.hash;
    let mut port = netns.within(|| af_packet::open(&config, &umem))?;
    let mut obtained = Obtained {
        zero_copy: false,
        need_wakeup: false,
        multi_buffer: options.jumbo_frames > 0,
        busy_poll: false,
        pages: page_name(&umem),
        refused: Vec::new(),
        tap: None,
    };
    if options.show == Some(true) {
        show(&netns, &mut port, &mut obtained);
    }
    let (port, tap) = tapped(port, options.tap.as_deref(), options.tap_append == Some(true))?;
    Ok(NativePort::new(
        PortShared::new(port, Vec::new(), tap, obtained.busy_poll)?,
        obtained,
        Some(netns),
    ))
}

/// Opens AF_XDP sockets over one new pool, bound to the queues. No frame arrives before they stand in an XSKMAP.
#[napi]
pub fn open_af_xdp(env: Env, netns: &kernel::Netns, options: AfXdpOptions) -> napi::Result<NativePort> {
    af_xdp_port(netns.netns(&env)?, &options).or_throw(&env)
}

/// What the options ask of the device.
pub(crate) fn config(options: &AfXdpOptions) -> Result<af_xdp::Config> {
    Ok(af_xdp::Config {
        ifname: options.ifname.clone(),
        queues: options.queues.clone(),
        ring_size: options.ring_size,
        zero_copy: match options.zero_copy.as_str() {
            "require" => af_xdp::ZeroCopy::Require,
            "prefer" => af_xdp::ZeroCopy::Prefer,
            "off" => af_xdp::ZeroCopy::Off,
            other => return invalid("zeroCopy", other),
        },
        mode: match options.mode.as_str() {
            "driver" => af_xdp::Mode::Driver,
            "generic" => af_xdp::Mode::Generic,
            other => return invalid("mode", other),
        },
        multi_buffer: options.jumbo_frames > 0,
        need_wakeup: true,
        busy_poll: options.busy_poll.then(af_xdp::BusyPoll::default),
        metadata: options.metadata,
    })
}

fn af_xdp_port(netns: Arc<Netns>, options: &AfXdpOptions) -> Result<NativePort> {
    let config = config(options)?;
    let umem = Umem::map(&UmemConfig {
        frames: options.frames,
        frame_size: options.frame_size,
        jumbo_frames: options.jumbo_frames,
        pages: pages(&options.pages)?,
    })?;
    let opened = netns.within(|| af_xdp::open(&config, &umem, None))?;
    let mut obtained = obtained(&opened.obtained, umem.page_kind());
    let mut port = opened.port;
    if let Some(senders) = options.senders {
        borrow_senders(&mut port, senders);
    }
    if options.show == Some(true) {
        show(&netns, &mut port, &mut obtained);
    }
    let (port, tap) = tapped(port, options.tap.as_deref(), options.tap_append == Some(true))?;
    let shared = PortShared::new(port, opened.sockets, tap, obtained.busy_poll)?;
    Ok(NativePort::new(shared, obtained, Some(netns)))
}

/// Opens a device that makes packets out of nothing and swallows what is sent: for tests and measurements.
#[napi]
pub fn open_loopback(env: Env, options: LoopbackOptions) -> napi::Result<NativePort> {
    loopback_port(&options).or_throw(&env)
}

fn loopback_port(options: &LoopbackOptions) -> Result<NativePort> {
    let port = loopback::null(&loopback::NullConfig {
        queues: options.queues,
        umem: UmemConfig {
            frames: options.frames,
            frame_size: options.frame_size,
            jumbo_frames: 0,
            pages: Pages::Auto,
        },
        length: options.length,
        order: match options.order.as_str() {
            "hot" => loopback::Order::Hot,
            "cold" => loopback::Order::Cold,
            other => return invalid("order", other),
        },
    })?;
    let obtained = Obtained {
        zero_copy: false,
        need_wakeup: false,
        multi_buffer: false,
        busy_poll: true,
        pages: page_name(&port.umem),
        refused: Vec::new(),
        tap: None,
    };
    Ok(NativePort::new(
        PortShared::new(port, Vec::new(), None, obtained.busy_poll)?,
        obtained,
        None,
    ))
}

/// Shows every queue of the port on an interface beside the card; where there can be none, says why.
fn show(netns: &Netns, port: &mut Port, obtained: &mut Obtained) {
    let opened = netns.within(|| Show::open(interface::index(&port.name)?, port.queues.len() as u32));
    match opened {
        Ok(mut show) => {
            obtained.tap = Some(show.name().to_owned());
            port.queues = port.queues.drain(..).map(|pair| show.wrap(pair)).collect();
        }
        Err(error) => obtained
            .refused
            .push(format!("tcpdump cannot see the flow: {error}")),
    }
}

/// Puts a capture into `file` over every queue of the port. A pcapng file may hold several sections, one after another.
pub(super) fn tapped(mut port: Port, file: Option<&str>, append: bool) -> Result<(Port, Option<Tap>)> {
    let Some(file) = file else {
        return Ok((port, None));
    };
    let opened = if append {
        File::options().create(true).append(true).open(file)
    } else {
        File::create(file)
    };
    let out = opened.map_err(|error| Error::io("open", format!("path={file}"), &error))?;
    let tap = Tap::new(Box::new(out), &port.name)?;
    port.queues = port
        .queues
        .into_iter()
        .map(|pair| tap.wrap(pair, SNAPLEN))
        .collect();
    Ok((port, Some(tap)))
}

pub(crate) fn pages(name: &str) -> Result<Pages> {
    Ok(match name {
        "auto" => Pages::Auto,
        "huge" => Pages::Huge,
        "ordinary" => Pages::Ordinary,
        other => return invalid("pages", other),
    })
}

/// What AF_XDP gave, as JavaScript is told it.
pub(crate) fn obtained(given: &af_xdp::Obtained, pages: PageKind) -> Obtained {
    Obtained {
        zero_copy: given.zero_copy,
        need_wakeup: given.need_wakeup,
        multi_buffer: given.multi_buffer,
        busy_poll: given.busy_poll,
        pages: kind_name(pages),
        refused: given.refused.iter().map(ToString::to_string).collect(),
        tap: None,
    }
}

pub(super) fn page_name(umem: &Umem) -> String {
    kind_name(umem.page_kind())
}

pub(crate) fn kind_name(kind: PageKind) -> String {
    let name = match kind {
        PageKind::Huge => "huge",
        PageKind::Ordinary => "ordinary",
    };
    name.to_owned()
}

fn invalid<T>(option: &str, value: &str) -> Result<T> {
    Err(Error::new("open", format!("{option}={value}"), EINVAL))
}
