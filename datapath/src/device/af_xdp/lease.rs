//! A lease's sockets: made, filled and bound by who has the rights to, then used by who has none.
//!
//! ```text
//!   grant (CAP_NET_RAW)                                        receive (no capability)
//!   memfd, sealed ── register ── rings sized ── fill ── bind
//!        └── sockets and memfd, by SCM_RIGHTS ──────────────>  map pool and rings, poll
//! ```
//!
//! DATA OWNERSHIP after the handover: the receiver alone produces into fill and tx rings and consumes from rx and
//! completion rings; the granter has unmapped everything and closed its descriptors. The fill ring of the k-th
//! socket then holds the chunks `k * filled` to `(k + 1) * filled - 1`. A socket that was bound before it was passed
//! can get no ring any more (EBUSY): one without a tx ring can never send. Mapping a ring after the bind needs
//! kernel 6.4.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bifurcate_linux::memory::MemoryFile;
use bifurcate_linux::xsk::{RingKind, XskSocket};
use bifurcate_linux::{Error, Result, interface};

use super::bind::{Attempt, Patience, ZeroCopy, bind, is_refusal, is_unclaimed, ladder};
use super::open::{Config, Obtained, Opened, ring};
use super::rx::{Rx, Settings};
use super::silent::Silent;
use super::socket::{QueueSocket, Watch};
use super::tx::{Modes, Tx};
use crate::device::{LeftToCard, Mtu, Port, QueuePair, TxQueue};
use crate::frame::{Owner, Pages, Umem, UmemConfig};
use crate::ring::{Consumer, Producer};

const EINVAL: i32 = 22;
/// Most entries of a ring of a lease, and most frames of a pool: what a client may ask a broker to lock is bounded
/// before anything is made.
const RING_MAX: u32 = 1 << 15;

/// Sockets and pool, ready to be passed.
#[derive(Debug)]
pub struct Granted {
    /// One bound socket a queue, in the order of the queues.
    pub sockets: Vec<OwnedFd>,
    /// The pool's memory file, sealed against a change of size.
    pub memory: OwnedFd,
    /// Chunks in each fill ring.
    pub filled: u32,
    /// What the kernel really gave.
    pub obtained: Obtained,
}

/// Makes the sockets and the pool of a lease. With `transmit` false they have no tx ring, and never get one.
///
/// # Errors
/// As [`super::open`].
pub fn grant(config: &Config, pool: &UmemConfig, transmit: bool) -> Result<Granted> {
    grant_with(config, pool, transmit, Patience::GRANT)
}

/// Whether an AF_XDP socket is bound to a queue of the calling thread's network namespace now: tried, by binding one.
/// `None` when nobody has it any more, and the kernel has not let go of it in `patience`; who has it is not waited for.
///
/// # Errors
/// As [`super::open`].
pub fn is_held(ifname: &str, queue: u32, patience: Duration) -> Result<Option<bool>> {
    let config = Config {
        queues: vec![queue],
        ring_size: 32,
        zero_copy: ZeroCopy::Off,
        ..Config::new(ifname)
    };
    let pool = UmemConfig {
        frames: 64,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    };
    match grant_with(&config, &pool, false, Patience::look(patience)) {
        Ok(_) => Ok(Some(false)),
        Err(error) if error.code() == "EBUSY" => {
            let unclaimed = interface::index(ifname).is_ok_and(|ifindex| is_unclaimed(ifindex, queue));
            Ok((!unclaimed).then_some(true))
        }
        Err(error) => Err(error),
    }
}

fn grant_with(config: &Config, pool: &UmemConfig, transmit: bool, patience: Patience) -> Result<Granted> {
    let invalid = |why: &str| {
        Err(Error::new(
            "lease(AF_XDP)",
            format!("dev={}: {why}", config.ifname),
            EINVAL,
        ))
    };
    if config.queues.is_empty() {
        return invalid("no queue");
    }
    if !config.ring_size.is_power_of_two() || !(32..=RING_MAX).contains(&config.ring_size) {
        return invalid("the size of a ring is a power of two from 32 to 32768");
    }
    if config.multi_buffer && pool.jumbo_frames == 0 {
        return invalid("multi-buffer needs jumbo frames in the pool");
    }
    let steps = ladder(config.zero_copy, config.mode, config.multi_buffer);
    if steps.is_empty() {
        return invalid("zero-copy is required, and generic mode always copies");
    }
    let umem = Umem::map(pool)?;
    let maker = Maker {
        config,
        ifindex: interface::index(&config.ifname)?,
        filled: (umem.frames() / 2 / config.queues.len() as u32).clamp(1, config.ring_size),
        umem: &umem,
        transmit,
        patience,
    };
    let mut sockets: Vec<XskSocket> = Vec::with_capacity(config.queues.len());
    let mut obtained = Obtained {
        zero_copy: false,
        need_wakeup: config.need_wakeup,
        multi_buffer: false,
        busy_poll: config.busy_poll.is_some(),
        refused: Vec::new(),
    };
    for place in 0..config.queues.len() {
        match sockets.first() {
            Some(first) => sockets.push(maker.socket(place, None, Some(first))?),
            None => {
                let (socket, step) = maker.first(&steps, &mut obtained.refused)?;
                obtained.multi_buffer = step.multi_buffer;
                obtained.zero_copy = socket.is_zero_copy()?;
                sockets.push(socket);
            }
        }
    }
    let memory = umem
        .file()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::io("fcntl", "F_DUPFD_CLOEXEC memfd", &error))?;
    Ok(Granted {
        sockets: sockets.into_iter().map(OwnedFd::from).collect(),
        memory,
        filled: maker.filled,
        obtained,
    })
}

/// What is the same for all sockets of a lease.
struct Maker<'a> {
    config: &'a Config,
    ifindex: u32,
    filled: u32,
    umem: &'a Arc<Umem>,
    transmit: bool,
    patience: Patience,
}

impl Maker<'_> {
    fn first(&self, steps: &[Attempt], refused: &mut Vec<Error>) -> Result<(XskSocket, Attempt)> {
        let mut last = None;
        for &step in steps {
            match self.socket(0, Some(step), None) {
                Ok(socket) => return Ok((socket, step)),
                Err(error) if is_refusal(&error) => {
                    refused.push(error.clone());
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new("lease(AF_XDP)", "no mode to try", EINVAL)))
    }

    fn socket(&self, place: usize, how: Option<Attempt>, share: Option<&XskSocket>) -> Result<XskSocket> {
        let Maker { config, umem, .. } = self;
        let socket = XskSocket::open()?;
        if share.is_none() {
            socket.register(umem.mapping(), umem.area() as usize, umem.frame_size(), 0)?;
        }
        for kind in [RingKind::Fill, RingKind::Completion, RingKind::Rx] {
            socket.size_ring(kind, config.ring_size)?;
        }
        if self.transmit {
            socket.size_ring(RingKind::Tx, config.ring_size)?;
        }
        if let Some(busy) = config.busy_poll {
            socket.busy_poll(busy.micros, busy.budget)?;
        }
        // Before the bind: some drivers (igb) take their receive buffers while they bind.
        let mut fill = Producer::new(ring(&socket, RingKind::Fill, config.ring_size)?);
        fill.free(self.filled);
        let first = place as u64 * u64::from(self.filled);
        for chunk in first..first + u64::from(self.filled) {
            fill.push(chunk * u64::from(umem.frame_size()));
        }
        fill.publish();
        let shared = share.map(AsFd::as_fd);
        let queue = config.queues[place];
        let (ifindex, need_wakeup) = (self.ifindex, config.need_wakeup);
        bind(&socket, ifindex, queue, how, need_wakeup, shared, self.patience)?;
        socket.tx_budget(config.ring_size.min(256));
        Ok(socket)
    }
}

/// A lease as it came from the broker. The numbers are the broker's word; they are held against what the kernel says
/// of the descriptors.
#[derive(Debug)]
pub struct Received {
    /// What to call the port: the card's name.
    pub name: String,
    /// One socket a queue.
    pub sockets: Vec<OwnedFd>,
    /// The pool's memory file.
    pub memory: OwnedFd,
    /// The pool's shape. `pages` is not looked at: the file says it.
    pub pool: UmemConfig,
    /// Entries of each ring.
    pub ring_size: u32,
    /// Chunks in each fill ring.
    pub filled: u32,
    /// The sockets have tx rings.
    pub transmit: bool,
    /// As the kernel told the broker.
    pub obtained: Obtained,
    /// What the senders behind the card leave undone.
    pub left: LeftToCard,
    /// The port's MTU, in bytes.
    pub mtu: u32,
}

/// Opens a lease: maps pool and rings. Asks for no right at all.
///
/// # Errors
/// `EINVAL`: the numbers do not fit each other or the memory file. `EPROTOTYPE`: a descriptor is no AF_XDP socket.
/// `EOPNOTSUPP`: kernel older than 6.4, which maps no ring of a bound socket.
pub fn receive(lease: Received) -> Result<Opened> {
    let invalid = |why: &str| Error::new("lease(AF_XDP)", format!("dev={}: {why}", lease.name), EINVAL);
    let queues = u32::try_from(lease.sockets.len()).unwrap_or(u32::MAX);
    if queues == 0 || queues > 256 || !lease.ring_size.is_power_of_two() || lease.ring_size > RING_MAX {
        return Err(invalid("no queue, too many, or a ring that cannot be"));
    }
    let claimed = u64::from(queues) * u64::from(lease.filled);
    if lease.filled > lease.ring_size || claimed > u64::from(lease.pool.frames) {
        return Err(invalid("more chunks in the fill rings than there are"));
    }
    let umem = Umem::received(MemoryFile::received(lease.memory)?, &lease.pool)?;
    let watch = Arc::new(Watch::fixed(lease.mtu));
    let mut sockets = Vec::with_capacity(lease.sockets.len());
    let mut pairs = Vec::with_capacity(lease.sockets.len());
    for (queue, fd) in (0u32..).zip(lease.sockets) {
        let socket = XskSocket::received(fd)?;
        let entries = lease.ring_size;
        let rx = Consumer::new(after_bind(ring(&socket, RingKind::Rx, entries))?);
        let fill = Producer::new(after_bind(ring(&socket, RingKind::Fill, entries))?);
        let completion = Consumer::new(after_bind(ring(&socket, RingKind::Completion, entries))?);
        let tx = if lease.transmit {
            Some(Producer::new(after_bind(ring(&socket, RingKind::Tx, entries))?))
        } else {
            None
        };
        let mut owner = Owner::new(&umem)?;
        if !owner.lend_first(queue * lease.filled, lease.filled) {
            return Err(invalid(
                "the chunks in the fill rings are not those of a fresh pool",
            ));
        }
        let obtained = &lease.obtained;
        let socket = Arc::new(QueueSocket::new(
            socket,
            queue,
            obtained.zero_copy,
            obtained.multi_buffer,
        ));
        let settings = Settings {
            target: owner.lent(),
            busy_poll: obtained.busy_poll,
            multi_buffer: obtained.multi_buffer,
            left: lease.left,
            watch: Arc::clone(&watch),
            // The port's program has nothing to ask: a veth driver knows no more than the frame says.
            metadata: false,
        };
        let modes = Modes {
            multi_buffer: obtained.multi_buffer,
            need_wakeup: obtained.need_wakeup,
        };
        let rx = Rx::new(&socket, rx, fill, owner, settings);
        let tx: Box<dyn TxQueue> = match tx {
            Some(tx) => Box::new(Tx::new(
                &socket,
                tx,
                completion,
                Owner::new(&umem)?,
                modes,
                watch.mtu(),
            )),
            None => Box::new(Silent::default()),
        };
        pairs.push(QueuePair {
            index: queue,
            rx: Box::new(rx),
            tx,
        });
        sockets.push(socket);
    }
    Ok(Opened {
        port: Port {
            name: lease.name,
            queues: pairs,
            umem,
        },
        sockets,
        obtained: lease.obtained,
    })
}

/// A kernel before 6.4 answers EBUSY where a ring of a bound socket is mapped.
fn after_bind<T>(mapped: Result<T>) -> Result<T> {
    mapped.map_err(|error| match error.code().as_str() {
        "EBUSY" => Error::new(
            "mmap(AF_XDP ring)",
            "of a socket that is bound: kernel 6.4 or newer",
            95,
        ),
        _ => error,
    })
}

impl Watch {
    /// Of an interface that may be in a namespace we have no socket in: its MTU stays as it was told.
    fn fixed(mtu: u32) -> Watch {
        Watch::without_socket(Mtu::new(mtu))
    }
}
