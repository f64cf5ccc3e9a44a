//! From a started card to a port: every slot of the receive rings filled, both halves of each queue made.

use std::sync::Arc;

use bifurcate_linux::{Error, Result};

use super::dma::{Pool, Slots};
use super::nic::Quiet;
use super::registers::{ReadWrite, Register, Registers};
use super::rx::{Ring, Rx};
use super::tx::Tx;
use super::words::{LONGEST, TransmitWords};
use crate::device::{Port, QueuePair};
use crate::frame::{Cache, Frame};

/// How a card is to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of queues.
    pub queues: u32,
    /// Slots of each ring, a power of two, 64 to 4,096.
    pub ring_size: u32,
    /// Every frame on the wire, not only those addressed to the card.
    pub promiscuous: bool,
    /// Sleep until a frame comes, where the card has an interrupt for each queue; else poll.
    pub interrupts: bool,
    /// An address other than the card's own.
    pub mac: Option<[u8; 6]>,
    /// Rings in the packed layout, which virtio alone has.
    pub packed: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            queues: 1,
            ring_size: 512,
            promiscuous: true,
            interrupts: false,
            mac: None,
            packed: false,
        }
    }
}

const EINVAL: i32 = 22;
const ENOMEM: i32 = 12;

impl Config {
    /// Whether a card with `most` queues can be set up so.
    ///
    /// # Errors
    /// `EINVAL` with the limits.
    pub fn check(&self, driver: &str, most: u32) -> Result<()> {
        let invalid = |why: String| Err(Error::new("card", format!("driver={driver} {why}"), EINVAL));
        if self.queues == 0 || self.queues > most {
            return invalid(format!("queues={}: the card has 1 to {most}", self.queues));
        }
        if !self.ring_size.is_power_of_two() || !(64..=4096).contains(&self.ring_size) {
            return invalid(format!(
                "ring_size={}: a power of two from 64 to 4096",
                self.ring_size
            ));
        }
        if self.packed && driver != "virtio" {
            return invalid("packed=yes: only virtio has that layout".to_owned());
        }
        Ok(())
    }
}

/// The rings of one queue, and where their doorbells are.
pub struct Rings {
    /// Receiving.
    pub rx: Slots,
    /// Sending.
    pub tx: Slots,
    /// Offset of the receive ring's tail register.
    pub rx_tail: u32,
    /// Offset of the transmit ring's tail register.
    pub tx_tail: u32,
}

impl Rings {
    /// The rings of every queue; `rx_tail` and `tx_tail` are the arrays of tail registers.
    #[must_use]
    pub fn carve(
        pool: &mut Pool,
        config: &Config,
        rx_tail: Register<ReadWrite>,
        tx_tail: Register<ReadWrite>,
    ) -> Vec<Rings> {
        let mut ring = |n| Rings {
            rx: pool.carve(config.ring_size),
            tx: pool.carve(config.ring_size),
            rx_tail: rx_tail.at(n).offset,
            tx_tail: tx_tail.at(n).offset,
        };
        (0..config.queues).map(&mut ring).collect()
    }
}

/// Where the rings of one queue lie for the card.
#[derive(Clone, Copy, Debug)]
pub struct RingAddresses {
    /// The receive ring.
    pub rx: u64,
    /// The transmit ring.
    pub tx: u64,
}

impl RingAddresses {
    /// Those of one queue.
    #[must_use]
    pub fn of(rings: &Rings) -> RingAddresses {
        RingAddresses {
            rx: rings.rx.address(),
            tx: rings.tx.address(),
        }
    }
}

/// The key of the hash that spreads flows over queues: Microsoft's, of "Verifying the RSS Hash Calculation", which
/// every vendor tests with. As the registers have it: the key's first byte (6d) is the lowest of the first one.
pub const RSS_KEY: [u32; 10] = [
    0xda56_5a6d,
    0xc20e_5b25,
    0x3d25_6741,
    0xb08f_a343,
    0xcb2b_cad0,
    0xb430_7bae,
    0xa32d_cb77,
    0x0cf2_3080,
    0x3bb7_426a,
    0xfa01_acbe,
];

/// Fills the receive rings of a started card, rings their doorbells and makes a port.
///
/// # Errors
/// `ENOMEM` when the pool has too few free frames to fill the rings.
pub fn build(
    name: &str,
    rings: Vec<Rings>,
    words: TransmitWords,
    registers: &Arc<dyn Registers>,
    pool: &Pool,
    shared: &Arc<Quiet>,
) -> Result<Port> {
    let mut queues = Vec::with_capacity(rings.len());
    let mut cache = Cache::new(&pool.umem);
    for (queue, mut rings) in (0..).zip(rings) {
        let size = rings.rx.size();
        let frames: Vec<Frame> = std::iter::from_fn(|| cache.take()).take(size as usize).collect();
        if frames.len() < size as usize {
            shared.adopt(frames.into_iter());
            let why = format!(
                "pool of {} frames, and queue {queue} needs {size} of them",
                pool.umem.frames()
            );
            return Err(Error::new("frame pool", why, ENOMEM));
        }
        for (slot, frame) in (0..).zip(&frames) {
            rings.rx.write(slot, 0, pool.address(frame));
            rings.rx.write(slot, 1, 0);
        }
        registers.write(rings.rx_tail, size - 1);
        let ring = Ring {
            slots: rings.rx,
            doorbell: rings.rx_tail,
            queue,
            interrupts: shared.waking.interrupts,
        };
        let rx = Rx::new(ring, frames, pool.clone(), registers, shared);
        let tx = Tx::new(
            rings.tx,
            rings.tx_tail,
            words,
            LONGEST,
            pool.clone(),
            registers,
            shared,
        );
        queues.push(QueuePair {
            index: queue,
            rx: Box::new(rx),
            tx: Box::new(tx),
        });
    }
    Ok(Port {
        name: name.to_owned(),
        queues,
        umem: Arc::clone(&pool.umem),
    })
}
