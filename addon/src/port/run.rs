//! Handlers in Rust on a port's queues: threads that turn until the port asks for its queues.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::device::TxQueue;
use bifurcate_datapath::engine::{self, Count, Discard, Forward, Handler, Lane, Options, Out, Reflect};
use bifurcate_datapath::frame::BATCH_DEFAULT;
use bifurcate_linux::Error;
use bifurcate_linux::event::{Interest, Ready, wait};

use super::shared::PortShared;

/// How often a run is looked at for loops that ended by themselves.
const LOOK: Duration = Duration::from_millis(500);

const EBUSY: i32 = 16;
const EINVAL: i32 = 22;

/// Starts `what` on every queue of `port`, one thread a queue.
///
/// # Errors
/// `EBUSY` when a queue is with another loop, `EINVAL` for a handler that does not exist.
pub(crate) fn start(
    port: &Arc<PortShared>,
    what: &str,
    to: Option<&Arc<PortShared>>,
    cores: Vec<u32>,
    busy_poll: bool,
) -> bifurcate_linux::Result<Supervised> {
    if let Some(to) = to {
        // Before a sending half is had, so that a close of `to` that comes between knows of it.
        to.add_sender(port);
    }
    let mut lanes = Vec::new();
    if let Err(error) = take(port, what, to, &mut lanes) {
        give_back(port, lanes.into_iter().map(Some), to.is_some());
        return Err(error);
    }
    let started = engine::start(lanes, &Options { cores, busy_poll });
    let run = started.inspect_err(|_| port.slots.iter().for_each(|slot| slot.lost()))?;
    Ok(Supervised {
        port: Arc::clone(port),
        run,
        forwards: to.is_some(),
    })
}

/// Takes every queue of `port` into a lane of its own, as far as it goes.
fn take(
    port: &Arc<PortShared>,
    what: &str,
    to: Option<&Arc<PortShared>>,
    lanes: &mut Vec<Lane>,
) -> bifurcate_linux::Result<()> {
    for (place, slot) in port.slots.iter().enumerate() {
        let handler = handler(what)?;
        let second = match to {
            Some(to) => Some(sender(to, place)?),
            None => None,
        };
        let busy = || Error::new("run", format!("queue {place} is with another handler"), EBUSY);
        let (rx, tx) = slot.take().ok_or_else(busy)?;
        let (out, spare) = match (second, to, tx) {
            (Some(second), Some(to), spare) => (Some(Out::new(second, &to.umem, &port.umem)), spare),
            (_, _, Some(tx)) => (Some(Out::new(tx, &port.umem, &port.umem)), None),
            (_, _, None) => (None, None),
        };
        // Forwarding leaves the port's own sending half where others can use it.
        slot.keep_tx(spare);
        let mut lane = Lane::new(rx, &port.umem, BATCH_DEFAULT, handler, out.into_iter().collect());
        if let Some(way) = port.pass(place, to.is_none()) {
            lane = lane.with_pass(way);
        }
        if let Some(program) = port.filter() {
            lane = lane.with_filter(program);
        }
        slot.counting(lane.counters());
        lanes.push(lane);
    }
    Ok(())
}

/// A run and the port whose queues it has.
pub(crate) struct Supervised {
    port: Arc<PortShared>,
    run: engine::Run,
    forwards: bool,
}

impl Supervised {
    /// Waits until the port asks for a queue or a loop ends, then gives all queues back.
    ///
    /// # Errors
    /// What a loop failed with.
    pub(crate) fn wait(self) -> bifurcate_linux::Result<()> {
        let asked = self.port.slots.first().map(|slot| slot.wake().as_fd());
        let mut looked = Ok(0);
        while let Some(fd) = asked
            && looked.is_ok()
            && !self.run.has_ended_loop()
            && !self.port.slots.iter().any(|slot| slot.asked())
        {
            looked = wait(&[(fd, Interest::Read)], &mut [Ready::default()], Some(LOOK));
        }
        self.run.stop();
        let (lanes, ended) = self.run.take_apart();
        give_back(&self.port, lanes.into_iter(), self.forwards);
        ended.and(looked.map(drop))
    }
}

/// Gives every queue back to its place; `None`: its loop is gone, and the queue with it. When the loops forwarded, their
/// outs are another port's: dropped, not put in the place of the port's own.
fn give_back(port: &PortShared, lanes: impl Iterator<Item = Option<Lane>>, forwarded: bool) {
    for (slot, lane) in port.slots.iter().zip(lanes) {
        let Some(lane) = lane else {
            slot.lost();
            continue;
        };
        let (rx, outs) = lane.into_parts();
        let own = outs.into_iter().next().filter(|_| !forwarded);
        slot.give_back(rx, own.map(Out::into_tx));
    }
}

fn handler(what: &str) -> bifurcate_linux::Result<Box<dyn Handler>> {
    Ok(match what {
        "drop" => Box::new(Discard),
        "count" => Box::new(Count::default()),
        "reflect" => Box::new(Reflect),
        "forward" => Box::new(Forward { port: 0 }),
        _ => return Err(Error::new("run", format!("there is no handler {what}"), EINVAL)),
    })
}

/// A sending half of `to` for the loop at `place`, which may have more queues than `to` has.
///
/// # Errors
/// `EBUSY` while a loop has that queue of `to` for itself alone.
pub(crate) fn sender(to: &PortShared, place: usize) -> bifurcate_linux::Result<Box<dyn TxQueue>> {
    let busy = || {
        let why = "does not send for others: it is closed, or a handler without outputs runs on it";
        Error::new("send", format!("port={}: {why}", to.name), EBUSY)
    };
    let slot = to.slots.get(place % to.slots.len().max(1)).ok_or_else(busy)?;
    slot.second_tx().ok_or_else(busy)
}
