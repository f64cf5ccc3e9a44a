//! The Intel 82576, whole: a physical function with up to 16 queues, by advanced descriptors.

mod filters;
mod registers;
mod start;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use bifurcate_linux::Result;
use bifurcate_linux::card::Card;

use self::filters::Filters;
pub use self::registers::TABLE;
use self::registers::{
    CRCERRS, CTRL, CTRL_EXT, CTRL_EXT_DRV_LOAD, CTRL_RST, EICR, EIMC, EIMS, GPRC, GPTC, ICR, IMC, IMS,
    IMS_RXDW, MPC, RAH, RAL, RCTL, RCTL_RXEN, RDT, RNBC, ROC, RQDPC, STATUS, STATUS_FD, STATUS_LU, TCTL, TDT,
    TPR, TPT,
};
use crate::device::Port;
use crate::device::pmd::{
    ADVANCED, Config, Counting, Filter, Link, Nic, Pool, Presence, Quiet, Registers, RingAddresses, Rings,
    Statistic, Waking, build, walk,
};
use crate::frame::Umem;

/// Vendor and device ids of the functions that this driver knows (82576EB datasheet, 9.4): those with copper ports,
/// whose PHY is in the controller. QEMU's `igb` shows the first.
pub const IDS: [(u16, u16); 2] = [(0x8086, 0x10c9), (0x8086, 0x10e8)];

/// Queues that a physical function has.
pub const QUEUES_MAX: u32 = 16;

/// A started 82576.
struct Igb {
    registers: Arc<dyn Registers>,
    config: Config,
    rings: Vec<RingAddresses>,
    /// MSI-X: a vector a queue. Else one interrupt for everything.
    vectors: bool,
    mac: [u8; 6],
    statistics: Counting,
    drops: Counting,
    filters: Mutex<Filters>,
}

/// Starts the card and opens its queues over `umem`.
///
/// # Errors
/// `EINVAL` for queues or rings that the card has not; `ENOMEM`; the step of the start that failed, named.
pub fn open(mut card: Card, config: &Config, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
    config.check("igb", QUEUES_MAX)?;
    let registers: Arc<dyn Registers> = Arc::new(card.map_bar(0)?);
    let waking = Waking::of(&mut card, config)?;
    let pool = Pool::map(&card, umem, 2 * config.queues as usize, config.ring_size)?;
    card.start_dma()?;
    let name = card.function().address.to_string();
    start(&name, Some(Arc::new(card)), registers, pool, config, waking)
}

/// Starts whatever has an 82576's registers.
fn start(
    name: &str,
    card: Option<Arc<Card>>,
    registers: Arc<dyn Registers>,
    mut pool: Pool,
    config: &Config,
    waking: Waking,
) -> Result<(Port, Arc<Quiet>)> {
    let rings = Rings::carve(&mut pool, config, RDT, TDT);
    let mut igb = Igb {
        registers: Arc::clone(&registers),
        config: config.clone(),
        rings: rings.iter().map(RingAddresses::of).collect(),
        vectors: waking.vectors,
        mac: [0; 6],
        statistics: Counting::new(vec![
            (GPRC, "good frames received"),
            (GPTC, "good frames sent"),
            (TPR, "frames received, good or bad"),
            (TPT, "frames sent, good or bad"),
            (CRCERRS, "frames with a bad CRC"),
            (MPC, "frames that found the receive FIFO full"),
            (RNBC, "frames that found no receive buffer"),
            (ROC, "frames longer than any that may come"),
        ]),
        drops: Counting::new(
            (0..config.queues)
                .map(|n| {
                    (
                        RQDPC.at(n),
                        "frames dropped since this queue had no buffer (Drop_En)",
                    )
                })
                .collect(),
        ),
        filters: Mutex::new(Filters::default()),
    };
    walk(&igb, start::STEPS)?;
    igb.mac = igb.address();
    let shared = Arc::new(Quiet::new(Box::new(igb), card, pool.clone()).with_waking(waking));
    let port = build(name, rings, ADVANCED, &registers, &pool, &shared)?;
    Ok((port, shared))
}

impl Igb {
    fn registers(&self) -> &dyn Registers {
        &*self.registers
    }

    fn address(&self) -> [u8; 6] {
        let low = RAL.at(0).read(self.registers()).to_le_bytes();
        let high = RAH.at(0).read(self.registers()).to_le_bytes();
        [low[0], low[1], low[2], low[3], high[0], high[1]]
    }

    fn filters(&self) -> std::sync::MutexGuard<'_, Filters> {
        // Which filters are in use: each entry is set or cleared whole.
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nic for Igb {
    fn driver(&self) -> &'static str {
        "igb"
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn stop(&self) {
        let registers = self.registers();
        EIMC.write(registers, u32::MAX);
        IMC.write(registers, u32::MAX);
        RCTL.write(registers, 0);
        TCTL.write(registers, 0);
        CTRL_EXT.change(registers, 0, CTRL_EXT_DRV_LOAD);
        CTRL.change(registers, CTRL_RST, 0);
        std::thread::sleep(std::time::Duration::from_millis(2));
        EIMC.write(registers, u32::MAX);
        IMC.write(registers, u32::MAX);
    }

    fn presence(&self) -> Presence {
        // Not a queue's ENABLE: a reset leaves queue 0 enabled (8.10.9).
        let rctl = RCTL.read(self.registers());
        if rctl == u32::MAX || rctl & RCTL_RXEN == 0 {
            Presence::Gone
        } else if STATUS.read(self.registers()) & STATUS_LU == 0 {
            Presence::Down
        } else {
            Presence::Here
        }
    }

    fn link(&self) -> Link {
        Link::of_status(STATUS.read(self.registers()), STATUS_LU, STATUS_FD)
    }

    fn statistics(&self) -> Vec<Statistic> {
        let mut all = self.statistics.refresh(self.registers());
        all.extend(self.drops.refresh(self.registers()));
        all
    }

    fn arm(&self, queue: u32) {
        if self.vectors {
            EICR.write(self.registers(), 1 << queue);
            EIMS.write(self.registers(), 1 << queue);
        } else {
            ICR.read(self.registers());
            IMS.write(self.registers(), IMS_RXDW);
        }
    }

    fn disarm(&self, queue: u32) {
        if self.vectors {
            EIMC.write(self.registers(), 1 << queue);
        } else {
            IMC.write(self.registers(), IMS_RXDW);
        }
    }

    fn add_filter(&self, filter: &Filter, queue: u32) -> Result<u32> {
        self.filters()
            .add(self.registers(), self.config.queues, filter, queue)
    }

    fn remove_filter(&self, number: u32) -> Result<()> {
        self.filters().remove(self.registers(), number)
    }
}
