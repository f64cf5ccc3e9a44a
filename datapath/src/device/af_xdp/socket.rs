//! A bound socket and what both halves of its queue share: its state, and the frames the kernel still has.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use bifurcate_linux::xsk::{Statistics, XskSocket};
use bifurcate_linux::{Result, interface};

use crate::device::{Mtu, State};
use crate::frame::Owner;

/// What a port's queues ask about their interface while it is open. AF_XDP sockets answer no such question, so
/// there is a socket for it, made in the interface's namespace.
#[derive(Debug)]
pub(super) struct Watch {
    /// `None`: the interface is out of reach, and its MTU stays as it was told.
    socket: Option<OwnedFd>,
    ifindex: u32,
    mtu: Mtu,
}

impl Watch {
    pub(super) fn new(ifindex: u32) -> Result<Watch> {
        let socket = interface::socket()?;
        let mtu = Mtu::new(interface::mtu_in(socket.as_fd(), ifindex)?);
        let socket = Some(socket);
        Ok(Watch { socket, ifindex, mtu })
    }

    pub(super) fn without_socket(mtu: Mtu) -> Watch {
        Watch {
            socket: None,
            ifindex: 0,
            mtu,
        }
    }

    pub(super) fn mtu(&self) -> &Mtu {
        &self.mtu
    }

    /// Tells the sending halves an MTU that was changed. An interface that is gone keeps its last one.
    pub(super) fn look(&self) {
        let Some(socket) = &self.socket else { return };
        if let Ok(now) = interface::mtu_in(socket.as_fd(), self.ifindex) {
            self.mtu.set(now);
        }
    }
}

/// The socket of one queue. Held by both halves, and by the control path, which puts it into an XSKMAP.
///
/// The socket closes, and the queue is free again, when the last holder is gone.
#[derive(Debug)]
pub struct QueueSocket {
    /// `None` only while being dropped.
    socket: Option<XskSocket>,
    queue: u32,
    zero_copy: bool,
    multi_buffer: bool,
    state: AtomicU8,
    /// The owners of halves that are gone: their frames come back when the socket has closed.
    orphans: Mutex<Vec<Owner>>,
}

impl QueueSocket {
    pub(super) fn new(socket: XskSocket, queue: u32, zero_copy: bool, multi_buffer: bool) -> QueueSocket {
        QueueSocket {
            socket: Some(socket),
            queue,
            zero_copy,
            multi_buffer,
            state: AtomicU8::new(0),
            orphans: Mutex::new(Vec::with_capacity(2)),
        }
    }

    /// The queue's number on its device: the key in an XSKMAP.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    pub(super) fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// What the kernel counted for the socket so far.
    ///
    /// # Errors
    /// Whatever getsockopt(2) reports.
    pub fn statistics(&self) -> Result<Statistics> {
        self.xsk().statistics()
    }

    /// Whether the device is there, as the last poll or send found it.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Up,
            1 => State::Down,
            _ => State::Gone,
        }
    }

    /// Asks the kernel whether the device is there.
    pub fn check(&self) -> State {
        self.note(self.xsk().wake_rx());
        self.state()
    }

    pub(super) fn xsk(&self) -> &XskSocket {
        self.socket.as_ref().expect("the socket is taken only in drop")
    }

    /// Learns the state from the outcome of a wake-up.
    pub(super) fn note(&self, woke: std::result::Result<(), i32>) {
        const ENXIO: i32 = 6;
        const ENETDOWN: i32 = 100;
        let state = match woke {
            Err(ENXIO) => 2,
            Err(ENETDOWN) => 1,
            _ => 0,
        };
        // Once unbound a socket is never bound again, whatever another call says meanwhile.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                (old != 2 && old != state).then_some(state)
            });
    }

    pub(super) fn adopt(&self, owner: Owner) {
        self.orphans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(owner);
    }
}

impl Drop for QueueSocket {
    fn drop(&mut self) {
        // Closing unbinds: in copy mode no more frames are written when close(2) returns. A zero-copy device
        // lets go later, in deferred work that cannot be waited for; its frames stay lent until the pool goes.
        drop(self.socket.take());
        if !self.zero_copy {
            let orphans = self.orphans.get_mut().unwrap_or_else(PoisonError::into_inner);
            for owner in orphans.drain(..) {
                owner.recover();
            }
        }
    }
}

impl AsFd for QueueSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.xsk().as_fd()
    }
}
