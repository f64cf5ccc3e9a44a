//! The virtio network driver over PCI: the card is a hypervisor's, or one that speaks virtio (VIRTIO 1.2, section 4.1).

mod control;
mod registers;
mod start;
mod transport;

#[cfg(any(test, feature = "model"))]
pub mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_linux::Result;
use bifurcate_linux::card::Card;

use self::registers::{DEVICE_STATUS, Mapped, NET_STATUS, Structures, status};
use self::start::{Wanted, start};
use crate::device::Port;
use crate::device::pmd::{Config, Link, Nic, Pool, Presence, Quiet, Statistic, Waking};
use crate::frame::Umem;

/// Vendor and device ids that this driver knows (section 4.1.2): a network device, and one that older drivers know too.
pub const IDS: [(u16, u16); 2] = [(0x1af4, 0x1041), (0x1af4, 0x1000)];

/// Queue pairs that are asked for at most.
pub const QUEUES_MAX: u32 = 16;

/// VIRTIO_NET_S_LINK_UP (section 5.1.4).
const LINK_UP: u32 = 1;

/// How long a device may take for a reset.
const LONGEST: Duration = Duration::from_secs(1);

/// A started card.
struct Virtio {
    structures: Arc<dyn Structures>,
    mac: [u8; 6],
    /// The device says whether there is a link.
    has_status: bool,
}

/// Starts the card and opens its queues over `umem`.
///
/// # Errors
/// `EINVAL` for queues or rings that cannot be; `EOPNOTSUPP` when the device lacks what was asked for, or would pass by
/// the IOMMU that stands before it; `ENOMEM`; `ETIMEDOUT` when it does not answer.
pub fn open(mut card: Card, config: &Config, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
    config.check("virtio", QUEUES_MAX)?;
    let structures: Arc<dyn Structures> = Arc::new(Mapped::new(&card)?);
    let waking = Waking::of(&mut card, config)?;
    let protected = card.via().protects_memory();
    // Jumbo frames lie across huge pages, which follow one another only for an IOMMU.
    let reach = if protected {
        umem.len()
    } else {
        umem.area() as usize
    };
    let name = card.function().address.to_string();
    let card = Arc::new(card);
    let memory = |bytes| {
        let pool = Pool::map_bytes(&card, umem, reach, bytes)?;
        card.start_dma()?;
        Ok(pool)
    };
    let wanted = Wanted {
        name: &name,
        card: Some(&card),
        config,
        umem,
        reach: reach as u32,
        protected,
        waking,
    };
    start(&wanted, &structures, memory)
}

impl Virtio {
    /// Resets the device, and waits until it has (section 4.1.4.3.1): it has left every ring by then.
    fn reset(structures: &dyn Structures) -> Result<()> {
        structures.write(DEVICE_STATUS, 0);
        let end = Instant::now() + LONGEST;
        loop {
            // Before it is read: a thread that stood still beyond the end reads once more.
            let late = Instant::now() > end;
            match structures.read(DEVICE_STATUS) {
                0 => return Ok(()),
                0xff => {
                    let why = "its status reads as all ones: it is gone";
                    return Err(bifurcate_linux::Error::new("virtio", why, 19));
                }
                now if late => {
                    let why = format!("reset: status {now:#x} after {LONGEST:?}");
                    return Err(bifurcate_linux::Error::new("virtio", why, 110));
                }
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}

impl Nic for Virtio {
    fn driver(&self) -> &'static str {
        "virtio"
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn stop(&self) {
        // One that does not answer is stopped by its Bus Master bit, which is cleared next.
        let _ = Virtio::reset(&*self.structures);
    }

    fn presence(&self) -> Presence {
        let now = self.structures.read(DEVICE_STATUS);
        if now == 0xff || now & status::DRIVER_OK == 0 || now & status::NEEDS_RESET != 0 {
            Presence::Gone
        } else if self.link().up {
            Presence::Here
        } else {
            Presence::Down
        }
    }

    fn link(&self) -> Link {
        // A device that does not say has one (section 5.1.4.2).
        let up = !self.has_status || self.structures.read(NET_STATUS) & LINK_UP != 0;
        Link {
            up,
            speed: 0,
            full_duplex: up,
        }
    }

    fn statistics(&self) -> Vec<Statistic> {
        Vec::new()
    }

    // Interrupts are asked for in the rings.
    fn arm(&self, _queue: u32) {}

    fn disarm(&self, _queue: u32) {}
}
