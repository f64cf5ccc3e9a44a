//! A port that receives free frames of its pool as fast as it is polled, and returns what is sent to the pool:
//! the work of a poll loop without a card, to be compared with DPDK's net_null.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bifurcate_linux::{Error, Result};

use crate::device::{Counters, Port, QueuePair, RxQueue, TxQueue};
use crate::frame::{Batch, Cache, Frame, HEADROOM, Umem, UmemConfig};

/// In which order free frames are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Last in, first out: the frame just returned, still in the CPU's cache.
    #[default]
    Hot,
    /// A walk through the whole pool, as a card with its ring of posted frames does.
    Cold,
}

/// How to make a null port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NullConfig {
    /// Number of queues.
    pub queues: u32,
    /// The pool.
    pub umem: UmemConfig,
    /// Bytes of each received frame: at least 60 are a valid UDP datagram over IPv4, from the start.
    pub length: u32,
    /// The order of frames.
    pub order: Order,
}

/// Frames that each queue leaves in the pool in cold order: two full caches.
const RESERVE: u32 = 1024;

/// Opens a null port: every frame of its pool starts as a UDP datagram of the length given.
///
/// # Errors
/// What mapping the pool reports; `EINVAL` without queues, for a length that does not fit a frame, or for cold
/// order in a pool of fewer than 2,048 frames a queue.
pub fn null(config: &NullConfig) -> Result<Port> {
    let NullConfig {
        queues,
        umem,
        length,
        order,
    } = *config;
    let invalid = |why: &str| Err(Error::new("loopback", format!("{config:?}: {why}"), 22));
    if queues == 0 {
        return invalid("a port has at least one queue");
    }
    if length == 0 || length > umem.frame_size.saturating_sub(HEADROOM) {
        return invalid("the length does not fit a frame");
    }
    if order == Order::Cold && umem.frames / queues < 2 * RESERVE {
        return invalid("cold order needs 2048 frames a queue");
    }
    let umem = Umem::map(&umem)?;
    fill(&umem, length);
    let queues = (0..queues)
        .map(|index| {
            let walk = match order {
                Order::Hot => Vec::new(),
                Order::Cold => take(&umem, umem.frames() / queues - RESERVE, length),
            };
            QueuePair {
                index,
                rx: Box::new(NullRx {
                    length,
                    walk,
                    at: 0,
                    counters: Arc::default(),
                }),
                tx: Box::new(NullTx {
                    counters: Arc::default(),
                }),
            }
        })
        .collect();
    Ok(Port {
        name: "loopback".into(),
        queues,
        umem,
    })
}

/// Up to `count` free frames of the pool, each of `length` bytes.
fn take(umem: &Arc<Umem>, count: u32, length: u32) -> Vec<Frame> {
    let mut cache = Cache::new(umem);
    (0..count).map_while(|_| cache.take_coloured(length)).collect()
}

/// Writes the datagram into every frame of the pool, where a fresh frame begins.
fn fill(umem: &Arc<Umem>, length: u32) {
    let datagram = datagram(length as usize);
    let mut frames = take(umem, umem.frames(), length);
    let mut cache = Cache::new(umem);
    for frame in &mut frames {
        cache.bytes_mut(frame).copy_from_slice(&datagram);
    }
    // Backwards, so that the pool is in the order it had.
    for frame in frames.into_iter().rev() {
        cache.give(frame);
    }
}

/// A UDP datagram (port 1024 to 9, RFC 863 discard) between two addresses of RFC 5737, Ethernet header first,
/// cut or padded to `length`.
fn datagram(length: usize) -> Vec<u8> {
    let ip = (length.max(42) - 14) as u16;
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    let mut header = vec![0x45, 0];
    header.extend(ip.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    let sum = !crate::frame::checksum::fold(crate::frame::checksum::sum(&header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(header);
    bytes.extend(1024u16.to_be_bytes());
    bytes.extend(9u16.to_be_bytes());
    bytes.extend((ip - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(length, 0);
    bytes
}

struct NullRx {
    length: u32,
    /// In cold order: the posted frames, walked round and round.
    walk: Vec<Frame>,
    at: usize,
    counters: Arc<Counters>,
}

impl RxQueue for NullRx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let want = batch.room();
        let got = if self.walk.is_empty() {
            batch.fill_free(want, self.length)
        } else {
            self.walk_on(batch, want)
        };
        if got < want {
            self.counters.no_frames.add(1);
        }
        self.counters.received.add(got as u64);
        self.counters
            .received_bytes
            .add(got as u64 * u64::from(self.length));
        got
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl NullRx {
    /// Posts a free frame in the place of the one longest posted, and receives that.
    fn walk_on(&mut self, batch: &mut Batch, want: usize) -> usize {
        for done in 0..want {
            let Some(free) = batch.cache_mut().take_coloured(self.length) else {
                return done;
            };
            let frame = std::mem::replace(&mut self.walk[self.at], free);
            self.at += 1;
            if self.at == self.walk.len() {
                self.at = 0;
            }
            batch.cache().prefetch(&frame);
            if let Err(frame) = batch.push(frame) {
                batch.cache_mut().give(frame);
                return done;
            }
        }
        want
    }
}

struct NullTx {
    counters: Arc<Counters>,
}

impl TxQueue for NullTx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let (frames, bytes) = batch.discard_sends();
        self.counters.sent.add(frames as u64);
        self.counters.sent_bytes.add(bytes);
        frames
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}
