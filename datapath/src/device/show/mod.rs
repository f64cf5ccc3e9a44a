//! A copy of every frame that a queue receives or sends, on an interface of its own where tcpdump can listen, over
//! any device.
//!
//! ```text
//!   rx, tx --copy--> write(TAP queue) -> bftapN: packet sockets see it, then tc ingress drops it
//! ```
//!
//! The kernel hands a frame to packet sockets before it runs tc ingress, so its stack never has one of them.

use std::sync::Arc;

use bifurcate_linux::bpf::{Attachment, Program, ProgramSource, ProgramType, TcDirection};
use bifurcate_linux::netlink::{ipv6, link};
use bifurcate_linux::tap::{TapQueue, VnetHeader};

use crate::device::observed::{Observer, observe};
use crate::device::{Counters, QueuePair};
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
        observe(pair, window.clone(), window)
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

impl Observer for Window {
    fn received(&self, batch: &Batch, first: usize, counters: &Counters) {
        for at in first..batch.len() {
            self.show(batch.bytes(at), counters);
        }
    }

    fn sending(&self, batch: &Batch, counters: &Counters) {
        batch.each_send(|bytes| self.show(bytes, counters));
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
