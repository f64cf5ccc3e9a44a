//! A lease: its queues, polled with no right at all, and its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::device::{QueuePair, State};
use bifurcate_datapath::engine::pass::TapPass;
use bifurcate_datapath::engine::{self, Handler, Lane, Options, Out, PassPath, Run};
use bifurcate_datapath::frame::{Batch, Umem, checksum};
use bifurcate_linux::event::{Interest, Ready, WAIT_MAX, wait};

use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::message::{Granted, Mechanism, Request, WantedMechanism};
use crate::received::{self, Opened};

/// Longest sleep without a look at the port: the kernel tells a sleeper of AF_XDP nothing when its device goes.
const LOOK: Duration = Duration::from_secs(1);

/// A flow of a card, or a card, leased: frames are received, sent and passed by this process, which needs no right for it.
///
/// It ends with [`Lease::give_back`], when it is dropped, with the process, or when it is taken back.
pub struct Lease {
    granted: Granted,
    pairs: Vec<QueuePair>,
    umem: Arc<Umem>,
    ways: Vec<TapPass>,
    // After the queues: the broker hears of the end when they are closed.
    link: Link,
}

impl Lease {
    pub(crate) fn open(
        broker: Broker,
        request: &Request,
        mut granted: Granted,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Lease> {
        let whole = request.mechanism == WantedMechanism::Vfio;
        if whole != (granted.mechanism == Mechanism::Vfio) {
            let given = granted.mechanism;
            return Err(Error::Protocol(format!(
                "it gave {given:?}, which was not asked for"
            )));
        }
        let Opened { port, ways, mac } = if whole {
            received::card(request, &granted, descriptors)?
        } else {
            received::flow(&granted, descriptors)?
        };
        if let Some(mac) = mac {
            granted.mac = mac;
        }
        Ok(Lease {
            link: Link::new(&granted.id, broker),
            granted,
            pairs: port.queues,
            umem: port.umem,
            ways,
        })
    }

    /// What was granted.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Its number of queues.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.pairs.len()
    }

    /// A batch for at most `limit` frames of this lease.
    #[must_use]
    pub fn batch(&self, limit: usize) -> Batch {
        Batch::new(&self.umem, limit)
    }

    /// Empties the batch (frames without a verdict are dropped) and puts into it what has arrived on a queue; gives how
    /// many frames.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn receive(&mut self, queue: usize, batch: &mut Batch) -> usize {
        batch.clear();
        self.pairs[queue].rx.poll(batch)
    }

    /// Sends the frames of the batch that were given the verdict send (to port 0) and drops the others; gives how many the
    /// port took. Checksums that a sender left to the card are made first; a packet longer than the MTU is not cut:
    /// [`Lease::start`] does that.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn send(&mut self, queue: usize, batch: &mut Batch) -> usize {
        if self.granted.left_to_card {
            for at in 0..batch.len() {
                if batch.sends_to(at, 0) {
                    checksum::complete_if_pending(batch.bytes_mut(at));
                }
            }
        }
        batch.sending_to(0);
        let sent = self.pairs[queue].tx.send(batch);
        batch.clear();
        sent
    }

    /// Passes a frame of the lease's flow into the kernel, as if it had just arrived on the card. False where the lease has
    /// no way back.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn pass(&mut self, queue: usize, frame: &[u8]) -> Result<bool> {
        let Some(way) = self.ways.get_mut(queue) else {
            return Ok(false);
        };
        way.pass(frame)?;
        way.flush()?;
        Ok(true)
    }

    /// Sleeps until a frame may have arrived or `timeout` is over, and at most a second. A lease that goes on without a
    /// broker looks for the next one meanwhile, which takes no longer: whatever that one has not said yet is heard by a
    /// later call, also when it hangs.
    ///
    /// # Errors
    /// [`Error::Revoked`] when the lease was taken back, and nothing arrives any more.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.link.check()?;
        if self.pairs.iter().all(|pair| pair.rx.state() == State::Gone) {
            return Err(self.link.gone());
        }
        if !self.pairs.iter_mut().all(|pair| pair.rx.prepare_to_wait()) {
            return Ok(());
        }
        let hurried = self
            .pairs
            .iter()
            .any(|pair| pair.rx.is_starving() || pair.tx.is_waiting());
        let most = if hurried { Duration::from_millis(1) } else { LOOK };
        let timeout = timeout.map_or(most, |timeout| timeout.min(most));
        let mut fds = Vec::with_capacity(self.pairs.len() + 1);
        for pair in &self.pairs {
            match pair.rx.ready_fd() {
                Some(fd) => fds.push((fd, Interest::Read)),
                None => return Ok(()),
            }
        }
        fds.truncate(WAIT_MAX - 1);
        if let Some(fd) = self.link.fd() {
            fds.push((fd, Interest::Read));
        }
        wait(&fds, &mut [Ready::default(); WAIT_MAX], Some(timeout))?;
        Ok(())
    }

    /// Hands the queues to poll loops, a thread a queue; `handler` makes the handler of each.
    ///
    /// # Errors
    /// What making a thread reports.
    pub fn start(self, burst: usize, mut handler: impl FnMut(usize) -> Box<dyn Handler>) -> Result<Serving> {
        let Lease {
            granted,
            pairs,
            umem,
            ways,
            link,
        } = self;
        let mut ways = ways.into_iter();
        let lanes = pairs
            .into_iter()
            .enumerate()
            .map(|(at, QueuePair { rx, tx, .. })| {
                let lane = Lane::new(rx, &umem, burst, handler(at), vec![Out::new(tx, &umem, &umem)]);
                match ways.next() {
                    Some(way) => lane.with_pass(Box::new(way)),
                    None => lane,
                }
            });
        let options = Options {
            cores: Vec::new(),
            busy_poll: granted.busy_poll,
        };
        let run = engine::start(lanes.collect(), &options)?;
        Ok(Serving { run, link, granted })
    }

    /// Gives the lease back: its flow is with the kernel when this returns, or, where no broker answers, when the next
    /// one has found that nobody has it. A whole card is stopped and closed first, at which the kernel resets it; it stays
    /// with vfio-pci, for the next lease.
    ///
    /// A broker that lives and does not answer is waited for 30 seconds, together with the next one where it ends
    /// meanwhile. The lease ends all the same, when that broker goes on or the next one comes: its connection is closed,
    /// and nobody has its descriptors.
    ///
    /// # Errors
    /// [`Error::Refused`] with `E_NO_SUCH_LEASE` when it was taken back before; [`Error::Protocol`] when the time is over.
    pub fn give_back(mut self) -> Result<()> {
        if self.granted.mechanism == Mechanism::Vfio {
            self.pairs.clear();
        }
        self.link.give_back()
    }
}

/// A lease whose queues are polled by threads of their own. Dropping it stops them and ends the lease.
pub struct Serving {
    // Before the connection in drop order: the lease ends when nobody polls it any more.
    run: Run,
    link: Link,
    granted: Granted,
}

impl Serving {
    /// What was granted.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Whether it goes on: to be called once a second or so, for it tells the next broker that the lease lives. It waits for
    /// nothing, but a second where the port is gone, for the broker to say why.
    ///
    /// # Errors
    /// [`Error::Revoked`] when it was taken back.
    pub fn check(&mut self) -> Result<()> {
        self.link.check()?;
        if self.run.is_finished() {
            return Err(self.link.gone());
        }
        Ok(())
    }

    /// Gives the lease back and stops the threads.
    ///
    /// # Errors
    /// As [`Lease::give_back`]; a handler that panicked.
    pub fn give_back(mut self) -> Result<()> {
        if self.granted.mechanism == Mechanism::Vfio {
            // A card reaches its memory no longer when the broker has heard of it: it is to be quiet before.
            self.run.stop();
            drop(self.run.join()?);
            return self.link.give_back();
        }
        // The kernel has the flow before the device is closed.
        self.link.give_back()?;
        self.run.stop();
        self.run.join()?;
        Ok(())
    }
}
