//! A connection to a broker: one answer for each request.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::seqpacket::{Connection, Received};

use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::message::{
    CARDS_SINCE, FromBroker, LONGEST, Listed, Request, ToBroker, VERSIONS, WantedMechanism, encode, parse,
};

/// Where a broker listens, unless `BIFURCATE_BROKER` says otherwise.
const USUAL_PLACE: &str = "/run/bifurcate/broker.sock";
/// How long a broker may take for an answer: making a port takes some ten milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version of the protocol that is spoken, of those that both know.
    pub version: u32,
    /// The broker's own version.
    pub broker: String,
    /// Its process.
    pub pid: u32,
    /// Inode of the network namespace that it serves.
    pub netns: u64,
}

/// A connection to a broker. Leases that were granted over it end with it.
#[derive(Debug)]
pub struct Broker {
    connection: Connection,
    path: PathBuf,
    welcome: Welcome,
    last: u32,
    /// Leases that were taken back, with the reason, while something else was waited for.
    revoked: Vec<(String, String)>,
    buffer: Vec<u8>,
}

impl Broker {
    /// Connects to the broker of this machine: at `BIFURCATE_BROKER`, or the usual place.
    ///
    /// # Errors
    /// [`Error::NoBroker`], [`Error::Refused`] where it is full, [`Error::Protocol`], also when it has not said within 30
    /// seconds who it is.
    pub fn connect() -> Result<Broker> {
        let named = std::env::var_os("BIFURCATE_BROKER").filter(|path| !path.is_empty());
        Broker::connect_at(&named.map_or_else(|| PathBuf::from(USUAL_PLACE), PathBuf::from))
    }

    /// Connects to the broker that listens at `path`.
    ///
    /// # Errors
    /// As [`Broker::connect`].
    pub fn connect_at(path: &Path) -> Result<Broker> {
        Broker::connect_until(path, Instant::now() + PATIENCE)
    }

    /// Connects to the broker that listens at `path`, where it says until then who it is.
    pub(crate) fn connect_until(path: &Path, until: Instant) -> Result<Broker> {
        let mut broker = Broker::greet(path)?;
        let (message, _) = broker.message(until)?;
        broker.take_welcome(message)?;
        Ok(broker)
    }

    /// Connects to the broker that listens at `path`, and waits for nothing: nothing may be asked of it before
    /// [`Broker::is_welcome`].
    pub(crate) fn greet(path: &Path) -> Result<Broker> {
        let no_broker = |error: bifurcate_linux::Error| Error::NoBroker {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let mut broker = Broker {
            connection: Connection::connect(path).map_err(no_broker)?,
            path: path.to_owned(),
            welcome: Welcome {
                version: 0,
                broker: String::new(),
                pid: 0,
                netns: 0,
            },
            last: 0,
            revoked: Vec::new(),
            buffer: vec![0; LONGEST],
        };
        broker.send(&ToBroker::Hello {
            versions: VERSIONS,
            name: env!("CARGO_PKG_NAME"),
        })?;
        Ok(broker)
    }

    /// Whether it has said who it is; to be asked until it has. Waits for nothing.
    pub(crate) fn is_welcome(&mut self) -> Result<bool> {
        match self.receive()? {
            Some((message, _)) => self.take_welcome(message).map(|()| true),
            None => Ok(false),
        }
    }

    fn take_welcome(&mut self, message: FromBroker) -> Result<()> {
        match message {
            FromBroker::Welcome {
                version,
                broker: name,
                pid,
                netns,
            } if VERSIONS.contains(&version) => {
                self.welcome = Welcome {
                    version,
                    broker: name,
                    pid,
                    netns,
                };
                Ok(())
            }
            FromBroker::Error { error, .. } => Err(Error::Refused(error)),
            other => Err(Error::Protocol(format!("it answered hello with {other:?}"))),
        }
    }

    /// Who serves.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Asks for a lease, and opens it. The connection goes with it: the lease ends with its connection.
    ///
    /// It takes some ten milliseconds, a card more, and at most 30 seconds for the broker's answer. A lease that is granted
    /// later is nobody's: this end has closed the connection by then, and the broker takes the lease away.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's reason; [`Error::Protocol`] where what came is not what it says, nothing came in
    /// time, or the broker is too old to lease whole cards; [`Error::System`] where the kernel refuses to map it (older than
    /// 6.4), or no driver here knows the card (`EOPNOTSUPP`).
    pub fn lease(self, request: &Request) -> Result<Lease> {
        self.lease_until(request, Instant::now() + PATIENCE)
    }

    fn lease_until(mut self, request: &Request, until: Instant) -> Result<Lease> {
        if request.mechanism == WantedMechanism::Vfio && self.welcome.version < CARDS_SINCE {
            let version = self.welcome.version;
            return Err(Error::Protocol(format!(
                "it speaks version {version}, and leases cards since {CARDS_SINCE}"
            )));
        }
        let number = self.next();
        self.send(&ToBroker::Lease {
            request: number,
            lease: request,
        })?;
        match self.answer(number, until)? {
            (FromBroker::Granted { lease, .. }, descriptors) => {
                Lease::open(self, request, *lease, descriptors)
            }
            (other, _) => Err(Error::Protocol(format!("it answered lease with {other:?}"))),
        }
    }

    /// The leases that this user may see, page by page; the broker may take 30 seconds for each.
    ///
    /// # Errors
    /// [`Error::NoBroker`] where it has ended, [`Error::Protocol`].
    pub fn list(&mut self) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let request = self.next();
            self.send(&ToBroker::List {
                request,
                after: after.as_deref(),
            })?;
            match self.answer(request, Instant::now() + PATIENCE)? {
                (FromBroker::Leases { leases, next, .. }, _) => {
                    if next.is_some() && leases.is_empty() {
                        return Err(Error::Protocol("its list has no end".into()));
                    }
                    all.extend(leases);
                    after = next;
                }
                (other, _) => return Err(Error::Protocol(format!("it answered list with {other:?}"))),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Takes a lease from whoever has it: the same user's, or anybody's for root and admins.
    ///
    /// # Errors
    /// [`Error::Refused`] with `E_NO_SUCH_LEASE`; [`Error::Protocol`] when it has not answered within 30 seconds: it will
    /// take the lease when it goes on.
    pub fn release(&mut self, lease: &str) -> Result<()> {
        let request = self.next();
        let until = Instant::now() + PATIENCE;
        self.done(request, &ToBroker::Release { request, lease }, until)
    }

    /// Gives a lease of this process back. One that has not answered until then takes it when it goes on.
    pub(crate) fn give_back(&mut self, lease: &str, until: Instant) -> Result<()> {
        let request = self.next();
        self.done(request, &ToBroker::Return { request, lease }, until)
    }

    /// Tells a broker that came later that this process still has the lease, and waits for nothing; gives the number of the
    /// answer, see [`Broker::has_done`].
    pub(crate) fn resume(&mut self, lease: &str) -> Result<u32> {
        let request = self.next();
        self.send(&ToBroker::Resume { request, lease })?;
        Ok(request)
    }

    /// Whether it has done what it was asked; to be asked until it has. Waits for nothing.
    pub(crate) fn has_done(&mut self, request: u32) -> Result<bool> {
        while let Some((message, _)) = self.receive()? {
            if let Some(answer) = self.answering(request, message)? {
                return done(&answer).map(|()| true);
            }
        }
        Ok(false)
    }

    /// The socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Why that lease was taken back, when it was: reads what has come, and waits for nothing.
    pub(crate) fn revocation(&mut self, lease: &str) -> Result<Option<String>> {
        while let Some((message, _)) = self.receive()? {
            self.unasked(message)?;
        }
        let found = self.revoked.iter().find(|(each, _)| each == lease);
        Ok(found.map(|(_, why)| why.clone()))
    }

    fn next(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    fn done(&mut self, request: u32, message: &ToBroker<'_>, until: Instant) -> Result<()> {
        self.send(message)?;
        let (answer, _) = self.answer(request, until)?;
        done(&answer)
    }

    fn send(&mut self, message: &ToBroker<'_>) -> Result<()> {
        match self.connection.send(&encode(message), &[]) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Protocol("it does not read what it is sent".into())),
            Err(error) if matches!(error.code().as_str(), "EPIPE" | "ECONNRESET") => {
                // A broker that closes says why before: that it is full, say.
                while let Some((message, _)) = self.receive()? {
                    self.unasked(message)?;
                }
                Err(self.gone(&error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The answer to that request; waits for it until then. What comes in between is kept.
    fn answer(&mut self, request: u32, until: Instant) -> Result<(FromBroker, Vec<OwnedFd>)> {
        loop {
            let (message, descriptors) = self.message(until)?;
            if let Some(answer) = self.answering(request, message)? {
                return Ok((answer, descriptors));
            }
        }
    }

    /// The message where it answers that request; another is kept.
    fn answering(&mut self, request: u32, message: FromBroker) -> Result<Option<FromBroker>> {
        match message {
            FromBroker::Error {
                request: Some(number),
                error,
            } if number == request => Err(Error::Refused(error)),
            FromBroker::Granted { request: number, .. }
            | FromBroker::Done { request: number }
            | FromBroker::Leases { request: number, .. }
                if number == request =>
            {
                Ok(Some(message))
            }
            other => self.unasked(other).map(|()| None),
        }
    }

    /// What came without being waited for.
    fn unasked(&mut self, message: FromBroker) -> Result<()> {
        match message {
            FromBroker::Revoked { lease, why } => self.revoked.push((lease, why)),
            // About the connection, which closes.
            FromBroker::Error { request: None, error } => return Err(Error::Refused(error)),
            _ => {}
        }
        Ok(())
    }

    /// The next message; waits for it until then.
    fn message(&mut self, until: Instant) -> Result<(FromBroker, Vec<OwnedFd>)> {
        loop {
            if let Some(message) = self.receive()? {
                return Ok(message);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Protocol("it did not answer in time".into()));
            }
            wait_one(self.connection.as_fd(), Interest::Read, Some(left))?;
        }
    }

    fn receive(&mut self) -> Result<Option<(FromBroker, Vec<OwnedFd>)>> {
        match self.connection.receive(&mut self.buffer)? {
            Received::Nothing => Ok(None),
            Received::End => Err(self.gone("it closed the connection")),
            Received::Message { cut: true, .. } => Err(Error::Protocol(
                "a message, or its list of descriptors, was too long".into(),
            )),
            Received::Message {
                length, descriptors, ..
            } => {
                let message = parse(&self.buffer[..length]).map_err(Error::Protocol)?;
                Ok(Some((message, descriptors)))
            }
        }
    }

    fn gone(&self, why: &str) -> Error {
        Error::NoBroker {
            path: self.path.clone(),
            why: why.to_owned(),
        }
    }
}

fn done(answer: &FromBroker) -> Result<()> {
    match answer {
        FromBroker::Done { .. } => Ok(()),
        other => Err(Error::Protocol(format!("it answered with {other:?}"))),
    }
}

impl AsFd for Broker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::played::{PlayedBroker, WELCOME};

    #[test]
    fn a_lease_that_is_granted_too_late_is_nobodys() {
        let place = PlayedBroker::new("late");
        let mut broker = Broker::greet(place.path()).unwrap();
        let client = place.accept();
        assert!(client.hear().contains(r#""type":"hello""#));
        assert!(!broker.is_welcome().unwrap());
        client.say(WELCOME);
        assert!(broker.is_welcome().unwrap());
        let request = Request::new("eth0", &["udp dst port 53"]);
        // No patience: what has not come now is late.
        let late = broker.lease_until(&request, Instant::now()).err().unwrap();
        assert_eq!(late.code(), "E_BROKER_PROTOCOL");
        assert!(late.to_string().contains("did not answer in time"), "{late}");
        // The broker finds the request, and nobody to give the lease to.
        assert!(client.hear().contains(r#""type":"lease""#));
        assert!(client.has_closed());
    }
}
