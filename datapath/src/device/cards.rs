//! Which of our drivers drives a card, and opening it.

use std::sync::Arc;

use bifurcate_linux::card::{Card, Via};
use bifurcate_linux::pci::{Address, Bus};
use bifurcate_linux::{Error, Result};

use super::pmd::{Config, Quiet};
use super::{Port, e1000e, igb, igbvf, virtio};
use crate::frame::Umem;

/// An opened card: its queues, and the card that they share.
pub type Opened = (Port, Arc<Quiet>);

/// One of our drivers.
struct Driver {
    name: &'static str,
    /// Vendor and device ids of the cards that it knows.
    ids: &'static [(u16, u16)],
    open: fn(Card, &Config, &Arc<Umem>) -> Result<Opened>,
}

const DRIVERS: [Driver; 4] = [
    Driver {
        name: "igb",
        ids: &igb::IDS,
        open: igb::open,
    },
    Driver {
        name: "igbvf",
        ids: &igbvf::IDS,
        open: igbvf::open,
    },
    Driver {
        name: "e1000e",
        ids: &e1000e::IDS,
        open: e1000e::open,
    },
    Driver {
        name: "virtio",
        ids: &virtio::pci::IDS,
        open: virtio::pci::open,
    },
];

/// The name of the driver that drives a function with these ids; none when there is none.
#[must_use]
pub fn driver_of(vendor: u16, device: u16) -> Option<&'static str> {
    find(vendor, device).map(|driver| driver.name)
}

fn find(vendor: u16, device: u16) -> Option<&'static Driver> {
    DRIVERS
        .iter()
        .find(|driver| driver.ids.contains(&(vendor, device)))
}

/// Takes the card at `address`, which is bound to the driver of `via` already, starts it and opens its queues over
/// `umem`.
///
/// # Errors
/// `EOPNOTSUPP` for a card that no driver here knows, with those that are known; as [`Card::open`]; and what the
/// driver says.
pub fn open(bus: &Bus, address: Address, via: Via, config: &Config, umem: &Arc<Umem>) -> Result<Opened> {
    check_known(bus, address)?;
    open_card(Card::open(bus, address, via)?, config, umem)
}

/// As [`open`], a card that this process has already.
///
/// # Errors
/// As [`open`].
pub fn open_card(card: Card, config: &Config, umem: &Arc<Umem>) -> Result<Opened> {
    let (vendor, device) = card.function().ids()?;
    let driver = known(card.function().address, vendor, device)?;
    (driver.open)(card, config, umem)
}

/// Whether a driver here knows the card at `address`.
///
/// # Errors
/// `EOPNOTSUPP` when none does, with those that are known; `ENODEV` for an address where nothing is.
pub fn check_known(bus: &Bus, address: Address) -> Result<()> {
    let (vendor, device) = bus.function(address)?.ids()?;
    known(address, vendor, device).map(drop)
}

/// The driver of a card with these ids.
fn known(address: Address, vendor: u16, device: u16) -> Result<&'static Driver> {
    find(vendor, device).ok_or_else(|| {
        let known: Vec<String> = DRIVERS
            .iter()
            .map(|Driver { name, ids, .. }| {
                let ids: Vec<String> = ids.iter().map(|(v, d)| format!("{v:04x}:{d:04x}")).collect();
                format!("{name} ({})", ids.join(", "))
            })
            .collect();
        let why = format!(
            "address={address} id={vendor:04x}:{device:04x}: no driver here knows it; there are {}",
            known.join(", ")
        );
        Error::new("pci", why, EOPNOTSUPP)
    })
}

const EOPNOTSUPP: i32 = 95;
