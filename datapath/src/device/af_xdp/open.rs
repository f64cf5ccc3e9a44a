//! Opening queues: frames into the fill rings, sockets bound, what was obtained read back.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bifurcate_linux::memory::Mapping;
use bifurcate_linux::xsk::{RingKind, RingOffsets, XskSocket};
use bifurcate_linux::{Error, Result, ethtool, interface};

use super::bind::{Attempt, Mode, Patience, ZeroCopy, bind, is_refusal, ladder};
use super::rx::{Rx, Settings};
use super::socket::{QueueSocket, Watch};
use super::tx::{Modes, Tx};
use crate::device::{LeftToCard, Port, QueuePair, left};
use crate::frame::{Cache, Owner, Umem};
use crate::ring::{Consumer, Descriptor, Mapped, Plain, Producer};

/// Busy polling: the owner's calls drive the device, its interrupts stay off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Microseconds one call may spin.
    pub micros: u32,
    /// Frames one call takes at most.
    pub budget: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        Self {
            micros: 20,
            budget: 64,
        }
    }
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interface, in the calling thread's network namespace.
    pub ifname: String,
    /// Its queues to bind to, at least one.
    pub queues: Vec<u32>,
    /// Entries of each of the four rings of a queue, a power of two.
    pub ring_size: u32,
    /// Whether the device may write into the pool itself.
    pub zero_copy: ZeroCopy,
    /// Where the XDP program runs.
    pub mode: Mode,
    /// Whether frames longer than one chunk are wanted. Needs jumbo frames in the pool.
    pub multi_buffer: bool,
    /// Let the kernel say when it wants to be woken, instead of waking it each time (XDP_USE_NEED_WAKEUP).
    pub need_wakeup: bool,
    /// Busy polling, when wanted.
    pub busy_poll: Option<BusyPoll>,
    /// The XDP program leaves what the driver says of a frame (hash, time, VLAN tag) in front of it.
    pub metadata: bool,
}

impl Config {
    /// Queue 0 of an interface, with what suits most: rings of 2,048, zero-copy if there is, need_wakeup.
    #[must_use]
    pub fn new(ifname: &str) -> Config {
        Config {
            ifname: ifname.to_owned(),
            queues: vec![0],
            ring_size: 2048,
            zero_copy: ZeroCopy::Prefer,
            mode: Mode::Driver,
            multi_buffer: false,
            need_wakeup: true,
            busy_poll: None,
            metadata: false,
        }
    }
}

/// What the kernel really gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obtained {
    /// Frames are written by the device into the pool (read back with XDP_OPTIONS).
    pub zero_copy: bool,
    /// The kernel says when it wants to be woken.
    pub need_wakeup: bool,
    /// Frames longer than one chunk arrive, and can be sent.
    pub multi_buffer: bool,
    /// Busy polling is on.
    pub busy_poll: bool,
    /// Why a better mode was refused, for each one that was tried.
    pub refused: Vec<Error>,
}

/// An opened device.
pub struct Opened {
    /// Its queues, to be moved to the threads that poll them.
    pub port: Port,
    /// The queues' sockets, in the same order, for the XSKMAP and for reading statistics.
    pub sockets: Vec<Arc<QueueSocket>>,
    /// What the kernel really gave.
    pub obtained: Obtained,
}

/// Opens queues of an interface over `umem`.
///
/// The first socket registers the pool with the kernel, the others share it; with `share`, a socket of a port
/// that is already open over the same pool, all of them share, and take the modes of that port (the kernel
/// lets a shared pool have one mode). No frame arrives before a socket is put into an XSKMAP.
///
/// At most half of the pool goes into the fill rings; so a pool of 4 times the rings' entries, all queues
/// together, is roomy.
///
/// # Errors
/// `EINVAL` for a configuration that cannot be; `ENODEV`; `EPERM`; `EBUSY` when a queue has a socket already;
/// `EOPNOTSUPP` when zero-copy is required and the driver has none; `ENOBUFS` when too little memory may be
/// locked; and what else bind(2) reports.
pub fn open(config: &Config, umem: &Arc<Umem>, share: Option<&QueueSocket>) -> Result<Opened> {
    let invalid = |why: &str| {
        let args = format!(
            "dev={} queues={:?} ring_size={}: {why}",
            config.ifname, config.queues, config.ring_size
        );
        Err(Error::new("open(AF_XDP)", args, EINVAL))
    };
    if config.queues.is_empty() {
        return invalid("no queue");
    }
    if !config.ring_size.is_power_of_two() || config.ring_size < 32 {
        return invalid("the size of a ring is a power of two of at least 32");
    }
    if config.multi_buffer && umem.jumbo_frames() == 0 {
        return invalid("multi-buffer needs jumbo frames in the pool");
    }
    let steps = ladder(config.zero_copy, config.mode, config.multi_buffer);
    if steps.is_empty() {
        return invalid("zero-copy is required, and generic mode always copies");
    }
    let ifindex = interface::index(&config.ifname)?;
    // The other half stays for frames in handlers and transmit rings.
    let fill = (umem.frames() / 2 / config.queues.len() as u32).clamp(1, config.ring_size);
    let plan = Plan {
        config,
        umem,
        ifindex,
        fill,
        watch: Arc::new(Watch::new(ifindex)?),
        left: left_to_card(config),
    };

    let mut queues = Vec::with_capacity(config.queues.len());
    let mut refused = Vec::new();
    let mut obtained: Option<Obtained> = None;
    for &queue in &config.queues {
        let first: Option<&Queue> = queues.first();
        let shared = first.map(|q| q.socket.as_fd()).or(share.map(AsFd::as_fd));
        let made = match shared {
            Some(fd) => plan.queue(queue, None, Some(fd)),
            None => first_that_binds(&plan, queue, &steps, &mut refused),
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                queues.into_iter().for_each(Queue::abandon);
                return Err(error);
            }
        };
        if obtained.is_none() {
            obtained = Some(Obtained {
                zero_copy: made.zero_copy,
                need_wakeup: config.need_wakeup,
                multi_buffer: made
                    .multi_buffer
                    .or(share.map(QueueSocket::multi_buffer))
                    .unwrap_or(false),
                busy_poll: config.busy_poll.is_some(),
                refused: Vec::new(),
            });
        }
        queues.push(made);
    }
    let mut obtained = obtained.expect("there is at least one queue");
    obtained.refused = refused;
    if share.is_some() && config.zero_copy == ZeroCopy::Require && !obtained.zero_copy {
        queues.into_iter().for_each(Queue::abandon);
        return invalid("zero-copy is required, and the shared pool was bound with a copy");
    }
    Ok(finish(&plan, queues, obtained))
}

const EINVAL: i32 = 22;

/// What the senders of this interface's frames leave undone. In generic mode the kernel may also have joined
/// segments, of which the checksum is then still to be made, on any device.
fn left_to_card(config: &Config) -> LeftToCard {
    let is_virtual = ethtool::driver(&config.ifname).is_ok_and(|info| left::is_virtual(&info.driver));
    if is_virtual || config.mode == Mode::Generic {
        LeftToCard::EVERYTHING
    } else {
        LeftToCard::NOTHING
    }
}

/// What is the same for all queues.
struct Plan<'a> {
    config: &'a Config,
    umem: &'a Arc<Umem>,
    ifindex: u32,
    /// Frames lent to each fill ring.
    fill: u32,
    watch: Arc<Watch>,
    left: LeftToCard,
}

/// A queue that is bound, in parts.
struct Queue {
    number: u32,
    socket: XskSocket,
    zero_copy: bool,
    /// `None` when inherited.
    multi_buffer: Option<bool>,
    owner: Owner,
    rx: Consumer<Mapped<Descriptor, Mapping>>,
    fill: Producer<Mapped<u64, Mapping>>,
    tx: Producer<Mapped<Descriptor, Mapping>>,
    completion: Consumer<Mapped<u64, Mapping>>,
}

impl Queue {
    /// Closes the queue again. Its frames go back to the pool, except from a zero-copy device, which lets go of them
    /// later: those stay lent until the pool goes.
    fn abandon(self) {
        drop(self.socket);
        if !self.zero_copy {
            self.owner.recover();
        }
    }
}

fn first_that_binds(
    plan: &Plan<'_>,
    queue: u32,
    steps: &[Attempt],
    refused: &mut Vec<Error>,
) -> Result<Queue> {
    for (at, &step) in steps.iter().enumerate() {
        match plan.queue(queue, Some(step), None) {
            Err(error) if is_refusal(&error) && at + 1 < steps.len() => refused.push(error),
            done => return done,
        }
    }
    unreachable!("the last step returns, and there is at least one")
}

impl Plan<'_> {
    /// Makes, fills and binds the socket of one queue. A refused bind leaves flags in the kernel's record of
    /// the pool, so each attempt has a socket and a registration of its own.
    fn queue(&self, number: u32, how: Option<Attempt>, shared: Option<BorrowedFd<'_>>) -> Result<Queue> {
        let socket = XskSocket::open()?;
        if shared.is_none() {
            let area = self.umem.area() as usize;
            socket.register(self.umem.mapping(), area, self.umem.frame_size(), 0)?;
        }
        let entries = self.config.ring_size;
        for kind in [RingKind::Fill, RingKind::Completion, RingKind::Rx, RingKind::Tx] {
            socket.size_ring(kind, entries)?;
        }
        let mut fill = Producer::new(ring(&socket, RingKind::Fill, entries)?);
        let completion = Consumer::new(ring(&socket, RingKind::Completion, entries)?);
        let rx = Consumer::new(ring(&socket, RingKind::Rx, entries)?);
        let tx = Producer::new(ring(&socket, RingKind::Tx, entries)?);
        if let Some(busy) = self.config.busy_poll {
            socket.busy_poll(busy.micros, busy.budget)?;
        }
        // Before the bind: some drivers (igb) take their receive buffers while they bind, and never look
        // again when there were none.
        let mut owner = Owner::new(self.umem)?;
        let mut cache = Cache::new(self.umem);
        for _ in 0..self.fill.min(fill.free(entries)) {
            let Some(frame) = cache.take() else { break };
            match owner.lend(frame) {
                Ok(address) => {
                    fill.push(address);
                }
                Err(frame) => cache.give(frame),
            }
        }
        fill.publish();
        let need_wakeup = self.config.need_wakeup;
        let bound = bind(
            &socket,
            self.ifindex,
            number,
            how,
            need_wakeup,
            shared,
            Patience::OPEN,
        )
        .and_then(|()| socket.is_zero_copy())
        .map_err(|error| self.explain(error));
        let zero_copy = match bound {
            Ok(zero_copy) => zero_copy,
            Err(error) => {
                // Never bound, so the kernel has looked at nothing.
                drop(socket);
                owner.recover();
                return Err(error);
            }
        };
        socket.tx_budget(entries.min(256));
        let multi_buffer = how.map(|how| how.multi_buffer);
        Ok(Queue {
            number,
            socket,
            zero_copy,
            multi_buffer,
            owner,
            rx,
            fill,
            tx,
            completion,
        })
    }

    fn explain(&self, error: Error) -> Error {
        Error {
            args: format!("dev={} {}", self.config.ifname, error.args),
            ..error
        }
    }
}

pub(super) fn ring<T: Plain>(socket: &XskSocket, kind: RingKind, entries: u32) -> Result<Mapped<T, Mapping>> {
    assert_eq!(size_of::<T>(), kind.entry_size());
    let (mapping, offsets) = socket.map_ring(kind, entries)?;
    let RingOffsets {
        producer,
        consumer,
        entries: first,
        flags,
    } = offsets;
    let slots_end = first.saturating_add(u64::from(entries) * size_of::<T>() as u64);
    let inside = |at: u64| at.is_multiple_of(4) && at + 4 <= mapping.len() as u64;
    assert!(
        inside(producer) && inside(consumer) && inside(flags),
        "the kernel's ring offsets: {offsets:?}"
    );
    assert!(
        first % 8 == 0 && slots_end <= mapping.len() as u64,
        "the kernel's ring offsets: {offsets:?}"
    );
    let base = mapping.base().as_ptr();
    // SAFETY: the offsets were just checked to lie in the mapping, aligned; page-aligned `base` keeps them so.
    // The mapping is handed over and lives as long as the ring. The caller makes one cursor of each ring, the
    // end that user space has, so each index has one writer on this side.
    let mapped = unsafe {
        Mapped::new(
            base.add(producer as usize).cast(),
            base.add(consumer as usize).cast(),
            base.add(flags as usize).cast(),
            base.add(first as usize).cast(),
            entries,
            mapping,
        )
    };
    Ok(mapped.expect("the size of a ring was checked to be a power of two"))
}

fn finish(plan: &Plan<'_>, queues: Vec<Queue>, obtained: Obtained) -> Opened {
    let mut sockets = Vec::with_capacity(queues.len());
    let mut pairs = Vec::with_capacity(queues.len());
    for queue in queues {
        let socket = Arc::new(QueueSocket::new(
            queue.socket,
            queue.number,
            queue.zero_copy,
            obtained.multi_buffer,
        ));
        let settings = Settings {
            target: queue.owner.lent(),
            busy_poll: obtained.busy_poll,
            multi_buffer: obtained.multi_buffer,
            metadata: plan.config.metadata,
            left: plan.left,
            watch: Arc::clone(&plan.watch),
        };
        let rx = Rx::new(&socket, queue.rx, queue.fill, queue.owner, settings);
        let owner = Owner::new(plan.umem).expect("a pool has room for more owners than a device has queues");
        let tx = Tx::new(
            &socket,
            queue.tx,
            queue.completion,
            owner,
            Modes {
                multi_buffer: obtained.multi_buffer,
                need_wakeup: obtained.need_wakeup,
            },
            plan.watch.mtu(),
        );
        pairs.push(QueuePair {
            index: queue.number,
            rx: Box::new(rx),
            tx: Box::new(tx),
        });
        sockets.push(socket);
    }
    let port = Port {
        name: plan.config.ifname.clone(),
        queues: pairs,
        umem: Arc::clone(plan.umem),
    };
    Opened {
        port,
        sockets,
        obtained,
    }
}
