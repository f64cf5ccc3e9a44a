//! Opening ports over a vhost-user socket: the driver (virtio-user) and the device end (vhost-user).

use std::sync::Arc;

use bifurcate_datapath::device::{Port, vhost, virtio};
use bifurcate_datapath::frame::{Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::feature;
use bifurcate_datapath::vhost_user::Inner;
use bifurcate_linux::{Error, Result};
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use super::native_port::NativePort;
use super::open::{Obtained, page_name, pages, tapped};
use super::shared::PortShared;
use crate::background::promised;

/// What openVirtioUser and openVhostUser are asked for.
#[napi(object)]
pub struct VhostUserOptions {
    /// The socket's path.
    pub path: String,
    /// Listen there for the other end; otherwise connect to it.
    pub server: bool,
    /// Number of queue pairs.
    pub queues: u32,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames of 68 KiB for packets longer than a frame; with any, the driver lets receive buffers be merged.
    pub jumbo_frames: u32,
    /// "auto", "huge" or "ordinary".
    pub pages: String,
    /// Slots of each ring, a power of two; the device end takes what its driver has.
    pub ring_size: u32,
    /// "packed" or "split": the one layout to use. None: split at the driver, and at the device end what its driver
    /// chooses.
    pub layout: Option<String>,
    /// Loops on it never sleep.
    pub busy_poll: bool,
    /// A pcapng file to write every received and sent frame to.
    pub tap: Option<String>,
    /// Add to that file what a port before this one has begun.
    pub tap_append: Option<bool>,
}

/// How a port's vhost-user connection is.
#[napi(object)]
pub struct Connection {
    /// Somebody is at the other end.
    pub connected: bool,
    /// Connections so far.
    pub connections: i64,
    /// Names of the virtio features that were negotiated last.
    pub features: Vec<String>,
    /// Why the last connection ended, when it was not by the other end's close.
    pub error: Option<String>,
    /// There will be no other connection.
    pub over: bool,
}

impl Connection {
    pub(super) fn of(inner: &Inner) -> Connection {
        let status = inner.status();
        Connection {
            connected: status.connected,
            connections: status.connections as i64,
            features: feature::names(status.features).map(str::to_owned).collect(),
            error: status.error,
            over: status.over,
        }
    }
}

/// Opens the virtio driver over a vhost-user socket, as DPDK's virtio-user does: the device is another process.
#[napi(ts_return_type = "Promise<NativePort>")]
pub fn open_virtio_user<'e>(
    env: &'e Env,
    options: VhostUserOptions,
) -> napi::Result<PromiseRaw<'e, NativePort>> {
    promised(env, "bf-open", move || driver(&options))
}

/// Opens the device end of a vhost-user socket: a QEMU guest, or another driver, attaches to it.
#[napi(ts_return_type = "Promise<NativePort>")]
pub fn open_vhost_user<'e>(
    env: &'e Env,
    options: VhostUserOptions,
) -> napi::Result<PromiseRaw<'e, NativePort>> {
    promised(env, "bf-open", move || device(&options))
}

fn driver(options: &VhostUserOptions) -> Result<NativePort> {
    let umem = pool(options)?;
    let (without, require) = match layout(options)? {
        (0, 0) => (feature::RING_PACKED, 0),
        asked => asked,
    };
    let ring_size = u16::try_from(options.ring_size)
        .map_err(|_| Error::new("open", format!("ringSize={}", options.ring_size), 22))?;
    let opened = virtio::open(
        &virtio::Config {
            path: options.path.clone().into(),
            server: options.server,
            queues: options.queues,
            ring_size,
            without,
            require,
        },
        &umem,
    )?;
    port(opened.port, opened.status, options, true)
}

fn device(options: &VhostUserOptions) -> Result<NativePort> {
    let umem = pool(options)?;
    let (without, _) = layout(options)?;
    let opened = vhost::open(
        &vhost::Config {
            path: options.path.clone().into(),
            server: options.server,
            queues: options.queues,
            without,
        },
        &umem,
    )?;
    port(opened.port, opened.status, options, false)
}

fn pool(options: &VhostUserOptions) -> Result<Arc<Umem>> {
    Umem::map(&UmemConfig {
        frames: options.frames,
        frame_size: options.frame_size,
        jumbo_frames: options.jumbo_frames,
        pages: pages(&options.pages)?,
    })
}

/// Features not to use, and features that must be there.
fn layout(options: &VhostUserOptions) -> Result<(u64, u64)> {
    match options.layout.as_deref() {
        None => Ok((0, 0)),
        Some("split") => Ok((feature::RING_PACKED, 0)),
        Some("packed") => Ok((0, feature::RING_PACKED)),
        Some(other) => Err(Error::new("open", format!("layout={other}"), 22)),
    }
}

fn port(port: Port, status: Arc<Inner>, options: &VhostUserOptions, zero_copy: bool) -> Result<NativePort> {
    let obtained = Obtained {
        zero_copy,
        need_wakeup: true,
        multi_buffer: options.jumbo_frames > 0,
        busy_poll: options.busy_poll,
        pages: page_name(&port.umem),
        refused: Vec::new(),
        tap: None,
    };
    let (port, tap) = tapped(port, options.tap.as_deref(), options.tap_append == Some(true))?;
    let shared = PortShared::new(port, Vec::new(), tap, obtained.busy_poll)?;
    Ok(NativePort::new(shared, obtained, None).with_connection(status))
}
