//! An Intel 82576 virtual function: one queue of a card whose physical function the kernel drives.

mod mailbox;
mod registers;
mod start;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bifurcate_linux::Result;
use bifurcate_linux::card::Card;

use self::mailbox::Mailbox;
pub use self::registers::TABLE;
use self::registers::{
    QUEUE_ENABLE, RDT, RQDPC, RXDCTL, STATUS_FD, STATUS_LU, TDT, TXDCTL, VFGPRC, VFGPTC, VTCTRL, VTCTRL_RST,
    VTEICR, VTEIMC, VTEIMS, VTSTATUS,
};
use crate::device::Port;
use crate::device::pmd::{
    ADVANCED, Config, Counting, Link, Nic, Pool, Presence, Quiet, ReadOnly, Register, Registers,
    RingAddresses, Rings, Statistic, Waking, build, walk,
};
use crate::frame::Umem;

/// Vendor and device ids of the functions that this driver knows (82576EB datasheet, 9.4).
pub const IDS: [(u16, u16); 1] = [(0x8086, 0x10ca)];

/// Queues that are used: a virtual function has two, and the kernel's igb gives it one.
pub const QUEUES_MAX: u32 = 1;

/// A started virtual function.
struct IgbVf {
    registers: Arc<dyn Registers>,
    config: Config,
    ring: RingAddresses,
    vectors: bool,
    /// Its address, in the low 48 bits, first byte lowest.
    mac: AtomicU64,
    good: Mutex<[Growing; 2]>,
    drops: Counting,
}

/// A counter of the card that is never cleared and begins again after all ones.
struct Growing {
    meaning: &'static str,
    register: Register<ReadOnly>,
    /// What it was at the last look.
    last: u32,
    sum: u64,
}

impl Growing {
    fn begin(registers: &dyn Registers, register: Register<ReadOnly>, meaning: &'static str) -> Growing {
        Growing {
            meaning,
            register,
            last: register.read(registers),
            sum: 0,
        }
    }

    /// What it has counted since it began, as far as the card is `there` to be asked.
    fn refresh(&mut self, registers: &dyn Registers, there: bool) -> Statistic {
        if there {
            let now = self.register.read(registers);
            self.sum += u64::from(now.wrapping_sub(self.last));
            self.last = now;
        }
        Statistic {
            name: self.register.name,
            meaning: self.meaning,
            value: self.sum,
        }
    }
}

/// Starts the function and opens its queue over `umem`.
///
/// # Errors
/// `EINVAL` for more than one queue; `ENOMEM`; `ETIMEDOUT` when the driver of the physical function does not answer;
/// the step of the start that failed is named.
pub fn open(mut card: Card, config: &Config, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
    config.check("igbvf", QUEUES_MAX)?;
    let registers: Arc<dyn Registers> = Arc::new(card.map_bar(0)?);
    let waking = Waking::by_vectors(&mut card, config)?;
    let pool = Pool::map(&card, umem, 2, config.ring_size)?;
    card.start_dma()?;
    let name = card.function().address.to_string();
    start(&name, Some(Arc::new(card)), registers, pool, config, waking)
}

/// Starts whatever has the registers of a virtual function.
fn start(
    name: &str,
    card: Option<Arc<Card>>,
    registers: Arc<dyn Registers>,
    mut pool: Pool,
    config: &Config,
    waking: Waking,
) -> Result<(Port, Arc<Quiet>)> {
    let rings = Rings::carve(&mut pool, config, RDT, TDT);
    let vf = IgbVf {
        registers: Arc::clone(&registers),
        config: config.clone(),
        ring: RingAddresses::of(&rings[0]),
        vectors: waking.vectors,
        mac: AtomicU64::new(0),
        good: Mutex::new([
            Growing::begin(&*registers, VFGPRC, "good frames received"),
            Growing::begin(&*registers, VFGPTC, "good frames sent"),
        ]),
        drops: Counting::new(vec![(
            RQDPC.at(0),
            "frames dropped since this queue had no buffer (Drop_En)",
        )]),
    };
    walk(&vf, start::STEPS)?;
    let shared = Arc::new(Quiet::new(Box::new(vf), card, pool.clone()).with_waking(waking));
    let port = build(name, rings, ADVANCED, &registers, &pool, &shared)?;
    Ok((port, shared))
}

impl IgbVf {
    fn registers(&self) -> &dyn Registers {
        &*self.registers
    }

    /// Whether it answers, with its receive queue on: a card that is gone reads as all ones or as zeros.
    fn is_there(&self) -> bool {
        let rxdctl = RXDCTL.read(self.registers());
        rxdctl != u32::MAX && rxdctl & QUEUE_ENABLE != 0
    }
}

impl Nic for IgbVf {
    fn driver(&self) -> &'static str {
        "igbvf"
    }

    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.mac.load(Ordering::Relaxed).to_le_bytes();
        [a, b, c, d, e, f]
    }

    fn stop(&self) {
        let registers = self.registers();
        VTEIMC.write(registers, u32::MAX);
        RXDCTL.write(registers, 0);
        TXDCTL.write(registers, 0);
        VTCTRL.change(registers, VTCTRL_RST, 0);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }

    fn presence(&self) -> Presence {
        if !self.is_there() {
            Presence::Gone
        } else if VTSTATUS.read(self.registers()) & STATUS_LU == 0
            || Mailbox::new(self.registers()).was_reset()
        {
            Presence::Down
        } else {
            Presence::Here
        }
    }

    fn link(&self) -> Link {
        Link::of_status(VTSTATUS.read(self.registers()), STATUS_LU, STATUS_FD)
    }

    fn statistics(&self) -> Vec<Statistic> {
        let there = self.is_there();
        // Numbers that are only ever added to.
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = good
            .iter_mut()
            .map(|one| one.refresh(self.registers(), there))
            .collect();
        all.extend(self.drops.refresh(self.registers()));
        all
    }

    fn arm(&self, queue: u32) {
        VTEICR.write(self.registers(), 1 << queue);
        VTEIMS.write(self.registers(), 1 << queue);
    }

    fn disarm(&self, queue: u32) {
        VTEIMC.write(self.registers(), 1 << queue);
    }
}
