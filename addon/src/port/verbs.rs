//! Opening ports over queue pairs of an RDMA device, and telling them who is at the other end.

use std::net::Ipv6Addr;
use std::sync::Arc;

use bifurcate_datapath::device::State;
use bifurcate_datapath::device::verbs::{self, Carries, Config, Control, Local};
use bifurcate_datapath::frame::{Umem, UmemConfig};
use bifurcate_linux::{Error, Result};
use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi_derive::napi;

use super::native_port::NativePort;
use super::open::{Obtained, page_name, pages, tapped};
use super::shared::PortShared;
use crate::background::promised;
use crate::error::OrThrow;

/// What openVerbs is asked for.
#[napi(object)]
pub struct VerbsOptions {
    /// The RDMA device, e.g. "mlx5_0".
    pub device: String,
    /// Its port, from 1.
    pub port: u32,
    /// Number of queue pairs.
    pub queues: u32,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Work requests of each side of a queue pair, a power of two.
    pub ring_size: u32,
    /// "auto", "huge" or "ordinary".
    pub pages: String,
    /// Raw packets: flow rules, each a struct ibv_flow_attr with its specifications. None: datagrams.
    pub rules: Option<Vec<Uint8Array>>,
    /// With datagrams: which of the port's addresses; none: one for RoCE version 2.
    pub gid: Option<u32>,
    /// With datagrams: the key of the queue pairs.
    pub qkey: Option<u32>,
    /// Loops on it never sleep.
    pub busy_poll: bool,
    /// A pcapng file to write every received and sent frame to.
    pub tap: Option<String>,
    /// Add to that file what a port before this one has begun.
    pub tap_append: Option<bool>,
}

/// How queue pairs of datagrams are reached.
#[napi(object)]
pub struct RdmaAddress {
    /// The address of their port, as an IPv6 address.
    pub gid: String,
    /// Their numbers, in the order of the queues.
    pub queue_pairs: Vec<u32>,
    /// The key that they check.
    pub qkey: u32,
    /// Bytes of the largest frame that they take.
    pub largest: u32,
}

/// How a port over queue pairs is.
#[napi(object)]
pub struct RdmaFacts {
    /// How the other end reaches it; none with raw packets.
    pub address: Option<RdmaAddress>,
    /// Bytes of the largest frame that its link takes.
    pub largest: u32,
    /// "up", "down" or "gone".
    pub state: String,
    /// Times that a queue pair was set up again after an error.
    pub restarts: i64,
    /// Why nothing will move any more; else the last error that a queue pair was set up again for.
    pub why: Option<String>,
}

/// Opens queue pairs of an RDMA device, which stays with the kernel.
#[napi]
pub fn open_verbs(env: Env, options: VerbsOptions) -> napi::Result<NativePort> {
    port(&options).or_throw(&env)
}

/// Whether rdma-core's libibverbs can be loaded here.
#[napi]
pub fn has_verbs_library() -> bool {
    bifurcate_linux::verbs::is_there()
}

fn port(options: &VerbsOptions) -> Result<NativePort> {
    let number = u8::try_from(options.port)
        .map_err(|_| Error::new("open(verbs)", format!("port={}", options.port), EINVAL))?;
    let carries = match &options.rules {
        Some(rules) => Carries::RawPackets {
            rules: rules.iter().map(|rule| rule.to_vec()).collect(),
        },
        None => Carries::Datagrams {
            gid: options.gid,
            qkey: options.qkey.unwrap_or(0),
        },
    };
    let umem = Umem::map(&UmemConfig {
        frames: options.frames,
        frame_size: options.frame_size,
        jumbo_frames: 0,
        pages: pages(&options.pages)?,
    })?;
    let config = Config {
        device: options.device.clone(),
        port: number,
        queues: options.queues,
        ring_size: options.ring_size,
        carries,
    };
    let opened = verbs::open(&config, &umem)?;
    let obtained = Obtained {
        zero_copy: true,
        need_wakeup: false,
        multi_buffer: false,
        busy_poll: options.busy_poll,
        pages: page_name(&umem),
        refused: Vec::new(),
        tap: None,
    };
    let (port, tap) = tapped(
        opened.port,
        options.tap.as_deref(),
        options.tap_append == Some(true),
    )?;
    let shared = PortShared::new(port, Vec::new(), tap, obtained.busy_poll)?;
    Ok(NativePort::new(shared, obtained, None).with_rdma(opened.control))
}

const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Down => "down",
        State::Gone => "gone",
    }
}

fn address(local: &Local) -> RdmaAddress {
    RdmaAddress {
        gid: Ipv6Addr::from(local.gid).to_string(),
        queue_pairs: local.queue_pairs.clone(),
        qkey: local.qkey,
        largest: local.largest,
    }
}

fn remote(address: &RdmaAddress) -> Result<Local> {
    let gid: Ipv6Addr = address
        .gid
        .parse()
        .map_err(|_| Error::new("connect", format!("gid={}", address.gid), EINVAL))?;
    Ok(Local {
        gid: gid.octets(),
        queue_pairs: address.queue_pairs.clone(),
        qkey: address.qkey,
        largest: address.largest,
    })
}

#[napi]
impl NativePort {
    /// How its queue pairs are; null for a port that has none.
    #[napi(getter)]
    pub fn rdma(&self) -> Option<RdmaFacts> {
        let control = self.control()?;
        let report = control.status().report();
        Some(RdmaFacts {
            address: control.local().map(address),
            largest: control.mtu(),
            state: state_name(report.state).to_owned(),
            restarts: i64::try_from(report.restarts).unwrap_or(i64::MAX),
            why: report.why,
        })
    }

    /// Datagrams of that end are taken from now on, and of no other; beginRdma sends to it. Takes up to some seconds,
    /// while the kernel looks for the way.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn connect_rdma<'e>(&self, env: &'e Env, to: RdmaAddress) -> napi::Result<PromiseRaw<'e, ()>> {
        let control = self.control().map(Arc::clone);
        promised(env, "bf-way", move || {
            let control = control.ok_or_else(|| {
                Error::new("connect", "the port has no queue pairs of datagrams", EOPNOTSUPP)
            })?;
            control.connect(&remote(&to)?)
        })
    }

    /// What is sent goes to the end that was named last: it takes our datagrams by now.
    #[napi]
    pub fn begin_rdma(&self) {
        if let Some(control) = self.control() {
            control.begin();
        }
    }

    /// Nobody is at the other end any more: what is sent is dropped, and counted as ringFull.
    #[napi]
    pub fn disconnect_rdma(&self) {
        if let Some(control) = self.control() {
            control.disconnect();
        }
    }
}

impl NativePort {
    fn control(&self) -> Option<&Arc<Control>> {
        self.rdma.as_ref()
    }
}
