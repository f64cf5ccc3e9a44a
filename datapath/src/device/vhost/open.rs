//! Opening the device end: a socket, a thread for its connection, queues for the loops.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use bifurcate_linux::event::{EventFd, Interest};
use bifurcate_linux::stream::Stream;
use bifurcate_linux::{Error, Result};

use crate::device::{Port, QueuePair};
use crate::frame::Umem;
use crate::vhost_user::{Inner, Link, MESSAGES_A_LOOK, Service, Source};

use super::queue::Queue;
use super::rx::Rx;
use super::session::{FEATURES, Session};
use super::tx::Tx;

/// Most queue pairs: the ring's number has eight bits.
const PAIRS_MAX: u32 = 127;

/// How to open the device end.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket.
    pub path: PathBuf,
    /// Listen there; otherwise connect to who does (QEMU with `server=on`).
    pub server: bool,
    /// Number of queue pairs offered.
    pub queues: u32,
    /// Virtio features not to offer, of those that the device has.
    pub without: u64,
}

impl Config {
    /// A listening socket with one queue pair.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Config {
        Config {
            path: path.into(),
            server: true,
            queues: 1,
            without: 0,
        }
    }
}

/// An opened device end.
pub struct Opened {
    /// Its queues: receiving is what the driver sends.
    pub port: Port,
    /// How its connection is.
    pub status: Arc<Inner>,
}

/// Opens the device end. A server waits for drivers, one after another; a client connects again when its driver goes.
///
/// # Errors
/// `EINVAL` for no queues or more than 127; `EADDRINUSE` when somebody listens at the path, `ENOENT` or `ECONNREFUSED`
/// when nobody does whom it is to connect to.
pub fn open(config: &Config, umem: &Arc<Umem>) -> Result<Opened> {
    check(config.queues)?;
    let source = Source::at(&config.path, config.server)?;
    let name = config.path.display().to_string();
    serve(&name, source, config.queues, FEATURES & !config.without, umem)
}

/// As [`open`], over a connection that is there.
///
/// # Errors
/// `EINVAL` for the number of queues.
pub fn attach(stream: Stream, queues: u32, umem: &Arc<Umem>) -> Result<Opened> {
    check(queues)?;
    serve("vhost-user", Source::One(Some(stream)), queues, FEATURES, umem)
}

fn check(queues: u32) -> Result<()> {
    if (1..=PAIRS_MAX).contains(&queues) {
        Ok(())
    } else {
        let what = format!("{queues} queues; 1 to {PAIRS_MAX} can be");
        Err(Error::new("vhost-user", what, 22))
    }
}

fn serve(name: &str, source: Source, queues: u32, offered: u64, umem: &Arc<Umem>) -> Result<Opened> {
    let trouble = EventFd::new()?;
    let rings = (0..2 * queues)
        .map(|_| Queue::new(&trouble))
        .collect::<Result<Vec<_>>>()?;
    let theirs = rings.clone();
    let service = Service::start("bf-vhost-user", source, move |link, inner| {
        let session = Session::new(&theirs, offered, &trouble)?;
        converse(link, session, inner, &trouble)
    })?;
    let service = Arc::new(service);
    let status = Arc::clone(service.inner());
    let receiving: Arc<[_]> = rings.iter().step_by(2).cloned().collect();
    let queues = rings
        .chunks(2)
        .zip(0..)
        .map(|(pair, index)| QueuePair {
            index,
            // Ring 0 of a pair is what the driver receives by, ring 1 what it sends by (VIRTIO 1.2, section 5.1.2).
            rx: Box::new(Rx::new(&pair[1], &service)),
            tx: Box::new(Tx::new(index as usize, &receiving, &service)),
        })
        .collect();
    Ok(Opened {
        port: Port {
            name: name.to_owned(),
            queues,
            umem: Arc::clone(umem),
        },
        status,
    })
}

/// Serves one connection to its end.
fn converse(mut link: Link, mut session: Session, inner: &Inner, trouble: &EventFd) -> Result<()> {
    trouble.lower();
    loop {
        // A driver that never stops talking is looked away from now and then.
        for _ in 0..MESSAGES_A_LOOK {
            let Some(message) = link.receive()? else { break };
            let reply = session.handle(message)?;
            // Before the reply: who has it may ask for the status at once.
            inner.set_features(session.features());
            if let Some(reply) = reply {
                link.send(&reply, &[])?;
            }
        }
        let fds = [(link.as_fd(), Interest::Read), (trouble.as_fd(), Interest::Read)];
        let [_, troubled, _] = inner.wait(&fds, None)?;
        if inner.is_stopped() {
            return Ok(());
        }
        if troubled && trouble.lower() {
            let what = if session.is_lost() {
                "the driver's memory vanished: truncated, or a hole punched into it"
            } else {
                "the driver wrote what cannot be into a ring: an index, or a chain without an end"
            };
            return Err(Error::new("vhost-user", what, 71));
        }
    }
}
