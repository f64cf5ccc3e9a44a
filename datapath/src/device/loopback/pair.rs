//! Two ports back to back: what one sends the other receives, queue by queue. For tests, and for trying
//! handlers without a network.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bifurcate_linux::Result;
use bifurcate_linux::event::EventFd;

use crate::device::{Counters, Port, QueuePair, RxQueue, TxQueue};
use crate::frame::{Batch, Umem, UmemConfig};

/// Opens two ports, `a` and `b`, each with a pool and `queues` queues; a wire holds `depth` frames each way.
///
/// # Errors
/// What mapping the pools or making the events reports.
pub fn pair(queues: u32, umem: &UmemConfig, depth: usize) -> Result<(Port, Port)> {
    let umems = (Umem::map(umem)?, Umem::map(umem)?);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for index in 0..queues {
        let (ab, ba) = (Wire::new(depth)?, Wire::new(depth)?);
        a.push(ends(index, Arc::clone(&ba), Arc::clone(&ab)));
        b.push(ends(index, ab, ba));
    }
    let port = |name: &str, queues, umem| Port {
        name: name.into(),
        queues,
        umem,
    };
    Ok((port("loopback-a", a, umems.0), port("loopback-b", b, umems.1)))
}

fn ends(index: u32, from: Arc<Wire>, to: Arc<Wire>) -> QueuePair {
    let rx = Box::new(WireRx {
        wire: from,
        counters: Arc::default(),
    });
    let tx = Box::new(WireTx {
        wire: to,
        counters: Arc::default(),
    });
    QueuePair { index, rx, tx }
}

/// Packets on their way. Copied, since the two ports have pools of their own.
struct Wire {
    packets: Mutex<VecDeque<Vec<u8>>>,
    depth: usize,
    /// Raised while packets are there.
    ready: EventFd,
}

impl Wire {
    fn new(depth: usize) -> Result<Arc<Wire>> {
        Ok(Arc::new(Wire {
            packets: Mutex::default(),
            depth,
            ready: EventFd::new()?,
        }))
    }

    fn packets(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        // Whole packets are pushed and popped, so a panic elsewhere leaves the queue sound.
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WireRx {
    wire: Arc<Wire>,
    counters: Arc<Counters>,
}

impl RxQueue for WireRx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let mut packets = self.wire.packets();
        let (mut got, mut bytes) = (0, 0);
        while batch.room() > 0 {
            let Some(packet) = packets.front() else { break };
            let frame = match batch.cache_mut().copy_in(packet) {
                Some(frame) => frame,
                None if packet.len() > batch.cache().largest() => {
                    self.counters.too_long.add(1);
                    packets.pop_front();
                    continue;
                }
                None => {
                    self.counters.no_frames.add(1);
                    break;
                }
            };
            bytes += packet.len() as u64;
            packets.pop_front();
            if let Err(frame) = batch.push(frame) {
                batch.cache_mut().give(frame);
                break;
            }
            got += 1;
        }
        if packets.is_empty() {
            self.wire.ready.lower();
        }
        self.counters.received.add(got as u64);
        self.counters.received_bytes.add(bytes);
        got
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.ready.as_fd())
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

struct WireTx {
    wire: Arc<Wire>,
    counters: Arc<Counters>,
}

impl TxQueue for WireTx {
    fn send(&mut self, batch: &mut Batch) -> usize {
        let mut packets = self.wire.packets();
        let (mut sent, mut bytes) = (0, 0);
        while let Some(frame) = batch.next_send() {
            if packets.len() < self.wire.depth {
                packets.push_back(batch.cache().bytes(&frame).to_vec());
                sent += 1;
                bytes += u64::from(frame.len());
            } else {
                self.counters.ring_full.add(1);
            }
            batch.cache_mut().give(frame);
        }
        if sent > 0 {
            self.wire.ready.raise();
        }
        self.counters.sent.add(sent as u64);
        self.counters.sent_bytes.add(bytes);
        sent
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}
