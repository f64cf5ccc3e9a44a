//! A lease: its queues, polled with no right at all, and its end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::{QueuePair, State};
use bifurcate_datapath::engine::pass::TapPass;
use bifurcate_datapath::engine::{self, Handler, Lane, Options, Out, PassPath, Run};
use bifurcate_datapath::frame::{Batch, Umem, checksum};
use bifurcate_linux::event::{Interest, Ready, WAIT_MAX, wait, wait_one};

use crate::broker::{Broker, SEARCHING};
use crate::error::{Error, Result};
use crate::message::{Granted, Mechanism, Request, WantedMechanism};
use crate::received::{self, Opened};

/// Longest sleep without a look at the port: the kernel tells a sleeper of AF_XDP nothing when its device goes.
const LOOK: Duration = Duration::from_secs(1);

/// The connection over which a lease was granted, or over which the next broker heard of it.
#[derive(Debug)]
struct Link {
    id: String,
    /// None while no broker runs: the lease goes on, and the next one is told.
    broker: Option<Broker>,
    path: std::path::PathBuf,
    searched: Instant,
}

impl Link {
    /// Hears what the broker says, and looks for the next one when it has ended.
    fn check(&mut self) -> Result<()> {
        let Some(broker) = &mut self.broker else {
            return self.search();
        };
        match broker.revocation(&self.id) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(self.revoked(why)),
            Err(Error::NoBroker { .. }) => {
                self.broker = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn search(&mut self) -> Result<()> {
        if self.searched.elapsed() < LOOK {
            return Ok(());
        }
        self.searched = Instant::now();
        let Ok(mut broker) = Broker::connect_within(&self.path, SEARCHING) else {
            return Ok(());
        };
        // With all patience: the lease would end with a connection that was closed before the answer.
        match broker.resume(&self.id) {
            Ok(()) => self.broker = Some(broker),
            Err(Error::Refused(refusal)) if refusal.code == "E_NO_SUCH_LEASE" => {
                return Err(self.revoked("the broker that came after does not know it".into()));
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn give_back(&mut self) -> Result<()> {
        if let Some(broker) = &mut self.broker {
            match broker.give_back(&self.id) {
                Err(Error::NoBroker { .. }) => self.broker = None,
                given => return given,
            }
        }
        // The next broker may have it already. One that is yet to come finds that nobody has its descriptors.
        match Broker::connect_at(&self.path) {
            Ok(mut broker) => match broker.give_back(&self.id) {
                // The one before took it back and died before it said so; or this one has found already that nobody has it.
                Err(Error::Refused(refusal)) if refusal.code == "E_NO_SUCH_LEASE" => Ok(()),
                given => given,
            },
            Err(_) => Ok(()),
        }
    }

    /// Why nothing comes any more. A broker deletes a port before it tells of it: it has a moment to say why.
    fn gone(&mut self) -> Error {
        let until = Instant::now() + LOOK;
        while let Some(broker) = &self.broker {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || wait_one(broker.as_fd(), Interest::Read, Some(left)).is_err() {
                break;
            }
            if let Err(error) = self.check() {
                return error;
            }
        }
        self.revoked("its port, or its card, is gone".into())
    }

    fn revoked(&self, why: String) -> Error {
        Error::Revoked {
            lease: self.id.clone(),
            why,
        }
    }
}

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
        let link = Link {
            id: granted.id.clone(),
            path: broker.path().to_owned(),
            broker: Some(broker),
            searched: Instant::now(),
        };
        Ok(Lease {
            granted,
            pairs: port.queues,
            umem: port.umem,
            ways,
            link,
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

    /// Sleeps until a frame may have arrived or `timeout` is over. A lease that goes on without a broker looks for the next
    /// one meanwhile.
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
        if let Some(broker) = &self.link.broker {
            fds.push((broker.as_fd(), Interest::Read));
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
    /// one has found that nobody has it. A whole card is stopped first, and reset by the kernel.
    ///
    /// # Errors
    /// [`Error::Refused`] with `E_NO_SUCH_LEASE` when it was taken back before.
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

    /// Whether it goes on: to be called once a second or so, for it tells the next broker that the lease lives.
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

#[cfg(test)]
mod tests {
    use bifurcate_linux::seqpacket::{Connection, Listener, Received};

    use super::*;

    /// A socket's file, removed when the test ends.
    struct Socket(std::path::PathBuf);

    impl Drop for Socket {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Where a broker listens, and the lease of one that has ended.
    fn orphan(name: &str) -> (Socket, Listener, Link) {
        let path = std::env::temp_dir().join(format!("bf-lease-{}-{name}", std::process::id()));
        let socket = Socket(path.clone());
        let listener = Listener::bind(&path, 1).unwrap();
        let link = Link {
            id: "lease-00000001".into(),
            broker: None,
            path,
            searched: Instant::now().checked_sub(2 * LOOK).unwrap(),
        };
        (socket, listener, link)
    }

    fn hear(client: &Connection) -> String {
        wait_one(client.as_fd(), Interest::Read, None).unwrap();
        let mut buffer = vec![0; 4096];
        let Received::Message { length, .. } = client.receive(&mut buffer).unwrap() else {
            panic!("no message");
        };
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// A broker that welcomes one client, answers what it asks with `answer`, and gives what it asked.
    fn answering(listener: Listener, answer: &'static str) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            wait_one(listener.as_fd(), Interest::Read, None).unwrap();
            let client = listener.accept().unwrap().unwrap();
            hear(&client);
            let welcome = r#"{"type":"welcome","version":3,"broker":"test","pid":1,"netns":1}"#;
            client.send(welcome.as_bytes(), &[]).unwrap();
            let asked = hear(&client);
            client.send(answer.as_bytes(), &[]).unwrap();
            asked
        })
    }

    const RETURN: &str = r#"{"type":"return","request":1,"lease":"lease-00000001"}"#;

    #[test]
    fn a_lease_is_given_back_to_the_broker_that_came_after_its_own() {
        let (_socket, listener, mut link) = orphan("next");
        let broker = answering(listener, r#"{"type":"done","request":1}"#);
        link.give_back().unwrap();
        assert_eq!(broker.join().unwrap(), RETURN);
    }

    #[test]
    fn a_port_that_is_gone_is_told_of_in_the_words_of_the_broker_that_deleted_it() {
        let (_socket, listener, mut link) = orphan("gone");
        let (found, deleted) = std::sync::mpsc::channel();
        let broker = std::thread::spawn(move || {
            wait_one(listener.as_fd(), Interest::Read, None).unwrap();
            let client = listener.accept().unwrap().unwrap();
            hear(&client);
            let welcome = r#"{"type":"welcome","version":3,"broker":"test","pid":1,"netns":1}"#;
            client.send(welcome.as_bytes(), &[]).unwrap();
            deleted.recv().unwrap();
            let revoked = r#"{"type":"revoked","lease":"lease-00000001","why":"user 0 took it back"}"#;
            client.send(revoked.as_bytes(), &[]).unwrap();
            client
        });
        link.broker = Some(Broker::connect_at(&link.path).unwrap());
        found.send(()).unwrap();
        let said = link.gone().to_string();
        assert!(said.contains("user 0 took it back"), "{said}");
        broker.join().unwrap();
    }

    #[test]
    fn a_lease_that_the_next_broker_has_ended_already_is_given_back() {
        let (_socket, listener, mut link) = orphan("ended");
        let refused = r#"{"type":"error","request":1,"error":{"code":"E_NO_SUCH_LEASE","what":"a","why":"b","next":"c"}}"#;
        let broker = answering(listener, refused);
        link.give_back().unwrap();
        assert_eq!(broker.join().unwrap(), RETURN);
    }

    #[test]
    fn a_lease_goes_on_and_ends_without_a_broker_that_answers() {
        let (_socket, listener, mut link) = orphan("silent");
        // It listens, and says nothing.
        link.check().unwrap();
        assert!(link.broker.is_none());
        drop(listener);
        link.give_back().unwrap();
    }
}
