//! Ways back into the kernel: a passed frame appears as if it had just arrived on the card.
//!
//! ```text
//!   handler --pass--> write(TAP queue) -> TAP, tc ingress: mark, mirred -> the card's receive path
//!                                                                          (taps, tc, bridge, IP, sockets)
//! ```
//!
//! [`open`] takes the TAP, and live frames where there can be no TAP. docs/pass.md says what arrives and what
//! it costs, docs/decisions/0040 why it is done so.

mod exception;
mod live;
mod tap;

use std::sync::Arc;

use bifurcate_linux::netns::Netns;
use bifurcate_linux::{Error, Result};

pub use exception::ExceptionPath;
pub use live::LivePass;
pub use tap::{PASSED_TC_INDEX, PassCounters, TapDevice, TapPass};

use super::PassPath;

/// How the card's XDP program, if it has one, is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardXdp {
    /// In the driver, or there is none: a passed frame cannot meet it.
    DriverOrNone,
    /// In the kernel's stack (generic mode).
    Generic,
}

/// What was opened.
pub enum Opened {
    /// Through a TAP.
    Tap {
        /// The interface that was made.
        device: TapDevice,
        /// One way for each queue.
        ways: Vec<TapPass>,
    },
    /// Through live frames, since a TAP could not be had.
    Live {
        /// Why there is no TAP.
        reason: Error,
        /// One way for each queue.
        ways: Vec<LivePass>,
    },
}

impl Opened {
    /// The ways alone, for an engine that does not care which they are.
    #[must_use]
    pub fn into_ways(self) -> Vec<Box<dyn PassPath>> {
        fn boxed<T: PassPath + 'static>(ways: Vec<T>) -> Vec<Box<dyn PassPath>> {
            ways.into_iter()
                .map(|way| Box::new(way) as Box<dyn PassPath>)
                .collect()
        }
        match self {
            Opened::Tap { ways, .. } => boxed(ways),
            Opened::Live { ways, .. } => boxed(ways),
        }
    }
}

/// Opens `queues` ways back to the card with index `card` in `netns`: a TAP; or live frames, which are slow,
/// short and marked by nothing, where no TAP can be had and the card's XDP program would not see them again.
///
/// # Errors
/// Those of [`TapDevice::open`] when live frames are no way out either: in generic mode, without
/// the right to make programs, or on a kernel without them.
pub fn open(netns: &Arc<Netns>, card: u32, queues: u32, xdp: CardXdp) -> Result<Opened> {
    match TapDevice::open(netns, card, queues) {
        Ok((device, ways)) => Ok(Opened::Tap { device, ways }),
        Err(reason) if xdp == CardXdp::Generic || is_final(&reason) => Err(reason),
        Err(reason) => match LivePass::open(netns, card, queues) {
            Ok(ways) => Ok(Opened::Live { reason, ways }),
            Err(_) => Err(reason),
        },
    }
}

/// Whether another way would fail for the same reason: no right to it, or no such card.
fn is_final(error: &Error) -> bool {
    matches!(error.code().as_str(), "EPERM" | "EACCES" | "ENODEV")
}
