//! The Intel 82574: two queues, extended receive and legacy transmit descriptors.

mod registers;
mod start;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bifurcate_linux::Result;
use bifurcate_linux::card::Card;

pub use self::registers::TABLE;
use self::registers::{
    CRCERRS, CTRL, CTRL_EXT, CTRL_EXT_DRV_LOAD, CTRL_RST, GPRC, GPTC, ICR, IMC, IMS, IMS_RXQ, IMS_RXT0, MPC,
    RAH, RAL, RCTL, RCTL_RXEN, RDT, RNBC, ROC, STATUS, STATUS_FD, STATUS_LU, TCTL, TDT, TPR, TPT,
};
use crate::device::Port;
use crate::device::pmd::{
    Config, Counting, LEGACY, Link, Nic, Pool, Presence, Quiet, Registers, RingAddresses, Rings, Statistic,
    Waking, build, walk,
};
use crate::frame::Umem;

/// Vendor and device ids of the functions that this driver knows (82574 datasheet, 9.1: 82574L, and the id it has with
/// an empty EEPROM).
pub const IDS: [(u16, u16); 2] = [(0x8086, 0x10d3), (0x8086, 0x10f6)];

/// Queues that the card has.
pub const QUEUES_MAX: u32 = 2;

/// A started 82574.
struct E1000e {
    registers: Arc<dyn Registers>,
    config: Config,
    rings: Vec<RingAddresses>,
    /// MSI-X: a vector a queue. Else one interrupt for everything.
    vectors: bool,
    mac: [u8; 6],
    statistics: Counting,
}

/// Starts the card and opens its queues over `umem`.
///
/// # Errors
/// `EINVAL` for queues or rings that the card has not; `ENOMEM`; the step of the start that failed, named.
pub fn open(mut card: Card, config: &Config, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
    config.check("e1000e", QUEUES_MAX)?;
    let registers: Arc<dyn Registers> = Arc::new(card.map_bar(0)?);
    let waking = Waking::of(&mut card, config)?;
    let pool = Pool::map(&card, umem, 2 * config.queues as usize, config.ring_size)?;
    card.start_dma()?;
    let name = card.function().address.to_string();
    start(&name, Some(Arc::new(card)), registers, pool, config, waking)
}

/// Starts whatever has an 82574's registers.
fn start(
    name: &str,
    card: Option<Arc<Card>>,
    registers: Arc<dyn Registers>,
    mut pool: Pool,
    config: &Config,
    waking: Waking,
) -> Result<(Port, Arc<Quiet>)> {
    let rings = Rings::carve(&mut pool, config, RDT, TDT);
    let mut nic = E1000e {
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
    };
    walk(&nic, start::STEPS)?;
    nic.mac = nic.address();
    let shared = Arc::new(Quiet::new(Box::new(nic), card, pool.clone()).with_waking(waking));
    let port = build(name, rings, LEGACY, &registers, &pool, &shared)?;
    Ok((port, shared))
}

impl E1000e {
    fn registers(&self) -> &dyn Registers {
        &*self.registers
    }

    fn address(&self) -> [u8; 6] {
        let low = RAL.at(0).read(self.registers()).to_le_bytes();
        let high = RAH.at(0).read(self.registers()).to_le_bytes();
        [low[0], low[1], low[2], low[3], high[0], high[1]]
    }

    fn cause(&self, queue: u32) -> u32 {
        if self.vectors {
            IMS_RXQ << queue
        } else {
            IMS_RXT0 | IMS_RXQ
        }
    }
}

impl Nic for E1000e {
    fn driver(&self) -> &'static str {
        "e1000e"
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn stop(&self) {
        let registers = self.registers();
        IMC.write(registers, u32::MAX);
        RCTL.write(registers, 0);
        TCTL.write(registers, 0);
        CTRL_EXT.change(registers, 0, CTRL_EXT_DRV_LOAD);
        CTRL.change(registers, CTRL_RST, 0);
        std::thread::sleep(std::time::Duration::from_millis(2));
        IMC.write(registers, u32::MAX);
    }

    fn presence(&self) -> Presence {
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
        self.statistics.refresh(self.registers())
    }

    fn arm(&self, queue: u32) {
        if !self.vectors {
            ICR.read(self.registers());
        }
        IMS.write(self.registers(), self.cause(queue));
    }

    fn disarm(&self, queue: u32) {
        IMC.write(self.registers(), self.cause(queue));
    }
}
