//! NativePort: an open port in JavaScript's hands.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bifurcate_datapath::device::Totals;
use bifurcate_datapath::device::pmd::{Presence, Quiet};
use bifurcate_datapath::device::verbs::Control;
use bifurcate_datapath::engine::Grace;
use bifurcate_datapath::engine::pass::{self, CardXdp, PASSED_TC_INDEX, TapDevice};
use bifurcate_datapath::vhost_user::Inner;
use bifurcate_linux::netns::Netns;
use bifurcate_linux::{Error, Result, interface};
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use super::open::Obtained;
use super::run;
use super::shared::PortShared;
use super::verbs::state_name;
use super::vhost_user::Connection;
use crate::background::promised;
use crate::error::OrThrow;

/// Counters since the port was opened.
#[napi(object)]
#[derive(Default)]
pub struct Counters {
    /// Frames that arrived.
    pub received: i64,
    /// Their bytes.
    pub received_bytes: i64,
    /// Frames that the device took for sending.
    pub sent: i64,
    /// Their bytes.
    pub sent_bytes: i64,
    /// Frames that a verdict dropped.
    pub dropped: i64,
    /// Frames given to the kernel.
    pub passed: i64,
    /// Times that no free frame was there to receive into or to copy to.
    pub no_frames: i64,
    /// Frames that found a ring full.
    pub ring_full: i64,
    /// Descriptors that a device or peer cannot have meant: dropped.
    pub invalid_descriptor: i64,
    /// Frames longer than the device or the pool can hold: dropped.
    pub too_long: i64,
    /// Verdicts, lengths or ports of a handler that cannot be: dropped.
    pub handler_invalid: i64,
    /// Frames that a handler keeps now.
    pub kept: i64,
    /// Frames that the device gave back with an error.
    pub device_error: i64,
    /// Frames that a capture file or tcpdump's interface had no room for.
    pub tap_lost: i64,
}

/// The counters of a port, and of each of its queues.
#[napi(object)]
pub struct PortCounters {
    /// All queues together.
    pub total: Counters,
    /// Each queue, in the order they were asked for.
    pub queues: Vec<Counters>,
}

/// An AF_XDP socket: what goes into an XSKMAP, at the key `queue`.
#[napi(object)]
pub struct SocketOfQueue {
    /// The queue's number on its device.
    pub queue: u32,
    /// The socket's descriptor, valid until the port is closed.
    pub fd: i32,
}

/// How to run a handler in Rust.
#[napi(object)]
pub struct NativeRunOptions {
    /// "drop", "count", "reflect" (swap MACs, send back) or "forward".
    #[napi(js_name = "do")]
    pub what: String,
    /// The cores to bind threads to; none: a thread a queue, not bound.
    pub cores: Option<Vec<u32>>,
}

/// How passed frames get back into the kernel.
#[napi(object)]
pub struct PassOpened {
    /// The TAP that carries them; null with live frames.
    pub tap: Option<String>,
    /// Why there is no TAP, when there is none.
    pub reason: Option<String>,
}

/// What `skb->tc_index` holds in a passed frame: the filters of packet sockets and of tc let such a frame be.
#[napi]
pub const PASS_MARK: u32 = PASSED_TC_INDEX as u32;

/// An open port: its queues and its frame pool.
#[napi]
pub struct NativePort {
    shared: Arc<PortShared>,
    obtained: Obtained,
    netns: Option<Arc<Netns>>,
    /// The TAP of passed frames, once there is one.
    tap: Mutex<Option<TapDevice>>,
    /// Of a port over a vhost-user socket.
    connection: Option<Arc<Inner>>,
    /// The card, where our own driver has one. Only its queues keep it going.
    card: Weak<Quiet>,
    /// Of a port over queue pairs of an RDMA device.
    pub(super) rdma: Option<Arc<Control>>,
}

impl Drop for NativePort {
    fn drop(&mut self) {
        // Nobody can stop or close the port any more (its environment ended, say): whoever runs on it ends.
        self.shared.ask_all();
    }
}

impl NativePort {
    pub(crate) fn new(shared: Arc<PortShared>, obtained: Obtained, netns: Option<Arc<Netns>>) -> NativePort {
        NativePort {
            shared,
            obtained,
            netns,
            tap: Mutex::default(),
            connection: None,
            card: Weak::new(),
            rdma: None,
        }
    }

    /// The port is over a vhost-user socket.
    pub(crate) fn with_connection(mut self, connection: Arc<Inner>) -> NativePort {
        self.connection = Some(connection);
        self
    }

    /// The port with the card that our own driver has behind it.
    pub(crate) fn with_card(mut self, card: Weak<Quiet>) -> NativePort {
        self.card = card;
        self
    }

    /// The port is over queue pairs.
    pub(crate) fn with_rdma(mut self, control: Arc<Control>) -> NativePort {
        self.rdma = Some(control);
        self
    }

    /// The card, while its queues are there.
    /// The port itself.
    pub(crate) fn port(&self) -> &Arc<PortShared> {
        &self.shared
    }

    pub(crate) fn quiet(&self) -> Option<Arc<Quiet>> {
        self.card.upgrade()
    }
}

#[napi]
impl NativePort {
    /// By which any thread of the process finds the port.
    #[napi(getter)]
    pub fn id(&self) -> u32 {
        self.shared.id
    }

    /// Number of queues.
    #[napi(getter)]
    pub fn queues(&self) -> u32 {
        self.shared.slots.len() as u32
    }

    /// What the device really gave.
    #[napi(getter)]
    pub fn obtained(&self) -> Obtained {
        self.obtained.clone()
    }

    /// How its vhost-user connection is now; null for a port that is over none.
    #[napi(getter)]
    pub fn connection(&self) -> Option<Connection> {
        self.connection.as_deref().map(Connection::of)
    }

    /// The AF_XDP sockets, in the order of the queues; none for other devices.
    #[napi]
    pub fn sockets(&self) -> Vec<SocketOfQueue> {
        self.shared
            .sockets()
            .iter()
            .map(|socket| SocketOfQueue {
                queue: socket.queue(),
                fd: socket.as_fd().as_raw_fd(),
            })
            .collect()
    }

    /// "up", "down" or "gone": the device, asked of the kernel now. Devices without sockets are up.
    #[napi]
    pub fn state(&self) -> String {
        use bifurcate_datapath::device::State;
        if let Some(card) = self.quiet() {
            return match card.presence() {
                Presence::Here => "up",
                Presence::Down => "down",
                Presence::Gone => "gone",
            }
            .to_owned();
        }
        if let Some(control) = &self.rdma {
            return state_name(control.status().report().state).to_owned();
        }
        let state = self
            .shared
            .sockets()
            .first()
            .map_or(State::Up, |socket| socket.check());
        state_name(state).to_owned()
    }

    /// The counters now. Cheap, and right at any time, from any thread.
    #[napi]
    pub fn stats(&self) -> PortCounters {
        let queues = self.shared.totals();
        let mut total = Totals::default();
        for queue in &queues {
            total += *queue;
        }
        PortCounters {
            total: counters(&total),
            queues: queues.iter().map(counters).collect(),
        }
    }

    /// Opens the way back into the kernel for frames with the verdict pass, through the device the port is on.
    #[napi]
    pub fn enable_pass(&self, env: Env, generic: bool) -> napi::Result<PassOpened> {
        self.open_pass(generic).or_throw(&env)
    }

    /// To be called when the card's address or MTU has changed: the way back into the kernel takes both. Nothing
    /// without such a way, and where the card is gone.
    #[napi]
    pub fn follow_card(&self, env: Env) -> napi::Result<()> {
        self.follow().or_throw(&env)
    }

    /// Runs a handler in Rust on every queue, in threads of its own, until the port is stopped. The promise
    /// resolves when every thread has ended.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn run_native<'e>(
        &self,
        env: &'e Env,
        options: NativeRunOptions,
        to: Option<&NativePort>,
    ) -> napi::Result<PromiseRaw<'e, ()>> {
        let cores = options.cores.unwrap_or_default();
        let to = to.map(|port| &port.shared);
        let busy = self.shared.busy_poll;
        let run = run::start(&self.shared, &options.what, to, cores, busy).or_throw(env)?;
        promised(env, "bf-run", move || run.wait())
    }

    /// Asks every loop and handler for its queue, and waits at most `grace_ms` until all have been given back.
    /// Resolves with the places of those that have not.
    #[napi(ts_return_type = "Promise<number[]>")]
    pub fn stop<'e>(&self, env: &'e Env, grace_ms: u32) -> napi::Result<PromiseRaw<'e, Vec<u32>>> {
        let shared = Arc::clone(&self.shared);
        // Asked now: a thread that starts late would ask whoever has the queue by then.
        let asked = shared.ask_all();
        promised(env, "bf-stop", move || {
            Ok(shared.stopped(&asked, &mut Grace::of_millis(grace_ms)))
        })
    }

    /// Stops, closes the device and puts zero pages in the place of the pool. Resolves with the places of the
    /// queues that were not given back in time; with any, the port stays as it is.
    #[napi(ts_return_type = "Promise<number[]>")]
    pub fn close<'e>(&self, env: &'e Env, grace_ms: u32) -> napi::Result<PromiseRaw<'e, Vec<u32>>> {
        let shared = Arc::clone(&self.shared);
        promised(env, "bf-close", move || shared.close(Grace::of_millis(grace_ms)))
    }
}

impl NativePort {
    fn tap(&self) -> std::sync::MutexGuard<'_, Option<TapDevice>> {
        // Only ever replaced whole.
        self.tap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self) -> Result<()> {
        match (&*self.tap(), &self.netns) {
            // Whoever watches the card hears by other means that it is gone, and the TAP goes with the port.
            (Some(tap), Some(netns)) => match tap.follow(netns) {
                Err(error) if error.code() == "ENODEV" => Ok(()),
                done => done,
            },
            _ => Ok(()),
        }
    }

    fn open_pass(&self, generic: bool) -> Result<PassOpened> {
        let Some(netns) = &self.netns else {
            return Err(Error::new(
                "pass",
                format!("{} has no kernel behind it", self.shared.name),
                95,
            ));
        };
        let xdp = if generic {
            CardXdp::Generic
        } else {
            CardXdp::DriverOrNone
        };
        let card = netns.within(|| interface::index(&self.shared.name))?;
        let opened = pass::open(netns, card, self.shared.slots.len() as u32, xdp)?;
        let told = match &opened {
            pass::Opened::Tap { device, .. } => PassOpened {
                tap: Some(device.name.clone()),
                reason: None,
            },
            pass::Opened::Live { reason, .. } => PassOpened {
                tap: None,
                reason: Some(reason.to_string()),
            },
        };
        if let pass::Opened::Tap { device, .. } = &opened {
            *self.tap() = Some(device.clone());
        }
        self.shared.set_pass(opened.into_ways());
        Ok(told)
    }
}

fn counters(totals: &Totals) -> Counters {
    // 2^63 frames do not arrive in this world.
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Counters {
        received: number(totals.received),
        received_bytes: number(totals.received_bytes),
        sent: number(totals.sent),
        sent_bytes: number(totals.sent_bytes),
        dropped: number(totals.dropped),
        passed: number(totals.passed),
        no_frames: number(totals.no_frames),
        ring_full: number(totals.ring_full),
        invalid_descriptor: number(totals.invalid_descriptor),
        too_long: number(totals.too_long),
        handler_invalid: number(totals.handler_invalid),
        kept: number(totals.kept),
        device_error: number(totals.device_error),
        tap_lost: number(totals.tap_lost),
    }
}
