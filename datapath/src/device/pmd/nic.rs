//! A card behind its queues: what a driver can do besides moving frames, and how everything ends.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bifurcate_linux::card::Card;
use bifurcate_linux::{Error, Result};

use super::dma::Pool;
use super::waking::Waking;
use crate::frame::{Cache, Frame};

/// The state of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// There is one.
    pub up: bool,
    /// Megabits a second; 0 when the card does not say.
    pub speed: u32,
    /// Both directions at once.
    pub full_duplex: bool,
}

impl Link {
    /// What a STATUS register of Intel's gigabit controllers says; `up` and `full_duplex` are its bits, the speed stands
    /// in bits 6 and 7. A card that is gone, and reads as all ones, has no link.
    #[must_use]
    pub fn of_status(status: u32, up: u32, full_duplex: u32) -> Link {
        if status == u32::MAX || status & up == 0 {
            return Link::default();
        }
        Link {
            up: true,
            speed: [10, 100, 1000, 1000][(status >> 6 & 3) as usize],
            full_duplex: status & full_duplex != 0,
        }
    }
}

/// Something that a card has counted since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// What the datasheet calls the register.
    pub name: &'static str,
    /// What it counts.
    pub meaning: &'static str,
    /// How much.
    pub value: u64,
}

/// Frames that a card can steer to a queue by itself. A coarse sieve: whoever polls the queue decides exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Frames of that EtherType.
    EtherType(u16),
    /// IPv4 packets of that protocol; what is `None` may be anything.
    FiveTuple {
        /// TCP 6, UDP 17.
        protocol: u8,
        /// Source address.
        source: Option<[u8; 4]>,
        /// Destination address.
        destination: Option<[u8; 4]>,
        /// Source port.
        source_port: Option<u16>,
        /// Destination port.
        destination_port: Option<u16>,
    },
}

/// Whether a card still answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// As it was set up.
    Here,
    /// Its link is down, or its other half is not ready.
    Down,
    /// It reads as all ones (unplugged), or somebody reset it.
    Gone,
}

/// A started card.
pub trait Nic: Send + Sync {
    /// The name of its driver here.
    fn driver(&self) -> &'static str;
    /// Its address.
    fn mac(&self) -> [u8; 6];
    /// Stops receiving and sending, as far as the card still listens.
    fn stop(&self);
    /// Whether it still answers. Reads a register: not for every poll.
    fn presence(&self) -> Presence;
    /// The link now.
    fn link(&self) -> Link;
    /// What it has counted since it was opened.
    fn statistics(&self) -> Vec<Statistic>;
    /// Lets the next frame of receive queue `queue` raise its interrupt, forgetting those that have been.
    fn arm(&self, queue: u32);
    /// No interrupt of receive queue `queue` any more.
    fn disarm(&self, queue: u32);
    /// Steers what `filter` wants to `queue`; gives the filter's number.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the card has no such filters; `ENOSPC` when all are in use; `EINVAL` for a queue that is
    /// not there.
    fn add_filter(&self, filter: &Filter, queue: u32) -> Result<u32> {
        let _ = queue;
        let why = format!("driver={} {filter:?}: the card has no such filter", self.driver());
        Err(Error::new("filter", why, EOPNOTSUPP))
    }
    /// Removes the filter of that number.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    fn remove_filter(&self, number: u32) -> Result<()> {
        Err(Error::new(
            "filter",
            format!("driver={} number={number}", self.driver()),
            ENOENT,
        ))
    }
}

const ENOENT: i32 = 2;
const EOPNOTSUPP: i32 = 95;

/// A card and everything that its queues share. When the last of them is dropped the card is quiet, and only then the
/// frames it had are free again.
pub struct Quiet {
    /// The card's driver.
    pub nic: Box<dyn Nic>,
    /// The card; none behind a model.
    pub card: Option<Arc<Card>>,
    /// How its queues wait for frames.
    pub waking: Waking,
    pool: Pool,
    frames: Mutex<Vec<Frame>>,
}

impl Quiet {
    /// The shared part of a started card.
    #[must_use]
    pub fn new(nic: Box<dyn Nic>, card: Option<Arc<Card>>, pool: Pool) -> Quiet {
        Quiet {
            nic,
            card,
            waking: Waking::default(),
            pool,
            frames: Mutex::default(),
        }
    }

    /// With queues that wait so; without this they poll.
    #[must_use]
    pub fn with_waking(mut self, waking: Waking) -> Quiet {
        self.waking = waking;
        self
    }

    /// Keeps the frames of a queue that is dropped until the card is quiet.
    pub(in crate::device) fn adopt(&self, frames: impl Iterator<Item = Frame>) {
        // A list that is only ever added to.
        self.frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(frames);
    }

    /// Whether the card still answers, and nobody wants it back.
    pub fn presence(&self) -> Presence {
        if self.card.as_ref().is_some_and(|card| card.is_wanted_back()) {
            return Presence::Gone;
        }
        self.nic.presence()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.nic.stop();
        let stopped = self.card.as_ref().map_or(Ok(()), |card| card.stop_dma());
        if stopped.is_err() {
            // A card that is unplugged writes nothing any more, and one that is not but refuses might: its frames
            // stay lost, the pool goes with its mapping.
            return;
        }
        let mut cache = Cache::new(&self.pool.umem);
        let frames = self.frames.get_mut().unwrap_or_else(PoisonError::into_inner);
        frames.drain(..).for_each(|frame| cache.give(frame));
    }
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quiet")
            .field("driver", &self.nic.driver())
            .finish_non_exhaustive()
    }
}
