//! A copy of every frame that a queue receives or sends, on an interface of its own where tcpdump can listen, over
//! any device.
//!
//! ```text
//!   rx, tx --copy--> write(TAP queue) -> bftapN: packet sockets see it, then tc ingress drops it
//! ```
//!
//! The kernel hands a frame to packet sockets before it runs tc ingress, so its stack never has one of them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bifurcate_linux::bpf::{Attachment, Program, ProgramSource, ProgramType, TcDirection};
use bifurcate_linux::netlink::{ipv6, link};
use bifurcate_linux::tap::{TapQueue, VnetHeader};

use crate::device::{Counters, LeftToCard, Mtu, QueuePair, RxQueue, State, TxQueue};
use crate::frame::Batch;

/// MTU of the interface: the most that the tun driver takes, 65,535 less an Ethernet header.
const MTU: u32 = 65_521;

/// The interface that shows what goes over a card's queues. It vanishes with the last queue that [`Show::wrap`] was
/// given, and with the process.
pub struct Show {
    name: String,
    queues: Vec<TapQueue>,
    gate: Arc<Attachment>,
}

impl Show {
    /// Makes the interface `bftapN`, N being the card's index `card`, in the calling thread's namespace: up, without an
    /// address, and with nothing behind it. It has room for `queues` queues (1 to 256).
    ///
    /// # Errors
    /// `ENOENT`, `ENODEV`: a kernel without TUN. `EPERM`: no CAP_NET_ADMIN or CAP_BPF. `EBUSY`: another split of the
    /// card is shown already. `EINVAL`: no queue, or too many.
    pub fn open(card: u32, queues: u32) -> bifurcate_linux::Result<Show> {
        let gate = Program::load(&ProgramSource {
            kind: ProgramType::SchedCls,
            name: "bifurcate_show",
            instructions: &drop_all(),
            maps: &[],
            fragments: false,
        })?;
        let tap = bifurcate_linux::tap::Tap::open(&format!("bftap{card}"), queues)?;
        ipv6::no_own_address(tap.ifindex)?;
        // Before it goes up: nothing may reach the kernel's stack.
        let gate = Attachment::tc(&gate, tap.ifindex, TcDirection::Ingress)?;
        let up = link::Change {
            up: Some(true),
            mtu: Some(MTU),
            ..link::Change::default()
        };
        link::set(tap.ifindex, &up)?;
        Ok(Show {
            name: tap.name,
            queues: tap.queues,
            gate: Arc::new(gate),
        })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shows both directions of a queue. Of more queues than were asked for, the rest is left as it is.
    #[must_use]
    pub fn wrap(&mut self, pair: QueuePair) -> QueuePair {
        let Some(queue) = self.queues.pop() else {
            return pair;
        };
        let window = Window {
            queue: Arc::new(queue),
            _gate: Arc::clone(&self.gate),
        };
        QueuePair {
            index: pair.index,
            rx: Box::new(ShownRx {
                inner: pair.rx,
                window: window.clone(),
            }),
            tx: Box::new(ShownTx {
                inner: pair.tx,
                window,
            }),
        }
    }
}

/// A queue's end of the interface.
#[derive(Clone)]
struct Window {
    queue: Arc<TapQueue>,
    /// After the queue in drop order: no frame can enter an interface without its gate.
    _gate: Arc<Attachment>,
}

impl Window {
    /// One system call, one copy (the kernel's own), no wait, no allocation. What there is no room for is counted.
    fn show(&self, frame: &[u8], counters: &Counters) {
        if self.queue.inject(VnetHeader::COMPLETE, frame).is_err() {
            counters.tap_lost.add(1);
        }
    }
}

struct ShownRx {
    inner: Box<dyn RxQueue>,
    window: Window,
}

impl RxQueue for ShownRx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        let got = self.inner.poll(batch);
        for at in before..batch.len() {
            self.window.show(batch.bytes(at), self.inner.counters());
        }
        got
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.ready_fd()
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.inner.prepare_to_wait()
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn is_starving(&self) -> bool {
        self.inner.is_starving()
    }

    fn left_to_card(&self) -> LeftToCard {
        self.inner.left_to_card()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.inner.counters()
    }
}

struct ShownTx {
    inner: Box<dyn TxQueue>,
    window: Window,
}

impl TxQueue for ShownTx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        // Before they are sent: afterwards they are the device's. What the device then refuses is shown too.
        let (window, counters) = (&self.window, self.inner.counters());
        batch.each_send(|bytes| window.show(bytes, counters));
        self.inner.send(batch)
    }

    fn is_waiting(&self) -> bool {
        self.inner.is_waiting()
    }

    fn mtu(&self) -> Option<&Mtu> {
        self.inner.mtu()
    }

    fn counters(&self) -> &Arc<Counters> {
        self.inner.counters()
    }
}

/// `return TC_ACT_SHOT`, as bpf(2) takes it (linux/bpf.h; linux/pkt_cls.h: TC_ACT_SHOT is 2).
fn drop_all() -> Vec<u8> {
    let instruction = |code: u8, immediate: i32| {
        let mut bytes = [code, 0, 0, 0, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
        bytes
    };
    // r0 = 2; exit.
    [instruction(0xb7, 2), instruction(0x95, 0)].concat()
}
