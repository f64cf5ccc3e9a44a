//! What ties a lease to a broker: the connection over which it was granted, and the search for the broker that comes after.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bifurcate_linux::event::{Interest, wait_one};

use crate::broker::{Broker, PATIENCE};
use crate::error::{Error, Result};

/// How long a broker that deleted a port has to say why.
const MOMENT: Duration = Duration::from_secs(1);
/// Between two looks for the next broker.
const SEARCH: Duration = Duration::from_secs(1);

/// How it stands with a broker.
#[derive(Debug)]
enum Tie {
    /// The connection over which the lease was granted, or resumed.
    Held(Broker),
    /// No broker runs, as far as is known: the lease goes on, and the next one is looked for.
    Loose,
    /// One was found, and has not said yet who it is.
    Greeted(Broker),
    /// It was told that this process has the lease, by a request of that number, and has not answered yet. It may have
    /// taken the lease, which would end with the connection: so that is kept, however long the answer takes.
    Told(Broker, u32),
}

/// A lease's tie to a broker, and to the one that comes after.
#[derive(Debug)]
pub(crate) struct Link {
    id: String,
    path: PathBuf,
    tie: Tie,
    searched: Instant,
}

impl Link {
    /// Of a lease that was granted over that connection.
    pub(crate) fn new(id: &str, broker: Broker) -> Link {
        Link {
            id: id.to_owned(),
            path: broker.path().to_owned(),
            tie: Tie::Held(broker),
            searched: Instant::now(),
        }
    }

    /// What is readable when the broker has said something, or has ended.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.tie {
            Tie::Held(broker) | Tie::Greeted(broker) | Tie::Told(broker, _) => Some(broker.as_fd()),
            Tie::Loose => None,
        }
    }

    /// Hears what the broker has said, and goes on looking for the next one when it has ended: at each call as far as that
    /// goes without waiting, since frames wait for whoever calls.
    ///
    /// # Errors
    /// [`Error::Revoked`]; what the broker said that it may not.
    pub(crate) fn check(&mut self) -> Result<()> {
        match &mut self.tie {
            Tie::Held(broker) => match broker.revocation(&self.id) {
                Ok(None) => {}
                Ok(Some(why)) => return Err(self.revoked(why)),
                Err(Error::NoBroker { .. }) => self.tie = Tie::Loose,
                Err(error) => return Err(error),
            },
            Tie::Loose => self.search(),
            Tie::Greeted(_) | Tie::Told(..) => self.resume()?,
        }
        Ok(())
    }

    fn search(&mut self) {
        if self.searched.elapsed() < SEARCH {
            return;
        }
        self.searched = Instant::now();
        if let Ok(broker) = Broker::greet(&self.path) {
            self.tie = Tie::Greeted(broker);
        }
    }

    /// Hears how far the next broker is; one with which it comes to nothing is left, and looked for again.
    fn resume(&mut self) -> Result<()> {
        self.tie = match std::mem::replace(&mut self.tie, Tie::Loose) {
            Tie::Greeted(mut broker) => match broker.is_welcome() {
                Ok(false) => Tie::Greeted(broker),
                Ok(true) => match broker.resume(&self.id) {
                    Ok(request) => Tie::Told(broker, request),
                    Err(_) => Tie::Loose,
                },
                Err(_) => Tie::Loose,
            },
            Tie::Told(mut broker, request) => match broker.has_done(request) {
                Ok(false) => Tie::Told(broker, request),
                Ok(true) => Tie::Held(broker),
                Err(error) if is_unknown(&error) => {
                    return Err(self.revoked("the broker that came after does not know it".into()));
                }
                Err(_) => Tie::Loose,
            },
            other => other,
        };
        Ok(())
    }

    /// Gives the lease back, to the broker or the one that came after it; waits for `PATIENCE` in all. Where no broker
    /// answers, the next one, or this one when it goes on, finds the connection closed and that nobody has the descriptors.
    pub(crate) fn give_back(&mut self) -> Result<()> {
        self.give_back_until(Instant::now() + PATIENCE)
    }

    fn give_back_until(&mut self, until: Instant) -> Result<()> {
        match std::mem::replace(&mut self.tie, Tie::Loose) {
            Tie::Held(mut broker) => match broker.give_back(&self.id, until) {
                Err(Error::NoBroker { .. }) => {}
                given => return given,
            },
            // It answers in order: that it knows the lease first.
            Tie::Told(mut broker, _) => match broker.give_back(&self.id, until) {
                Err(Error::NoBroker { .. }) => {}
                given => return ended(given),
            },
            Tie::Greeted(_) | Tie::Loose => {}
        }
        // The next broker may have it already. One that is yet to come finds that nobody has its descriptors.
        match Broker::connect_until(&self.path, until) {
            Ok(mut broker) => ended(broker.give_back(&self.id, until)),
            Err(_) => Ok(()),
        }
    }

    /// Why nothing comes any more. A broker deletes a port before it tells of it: it has a moment to say why.
    pub(crate) fn gone(&mut self) -> Error {
        let until = Instant::now() + MOMENT;
        while let Some(fd) = self.fd() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || wait_one(fd, Interest::Read, Some(left)).is_err() {
                break;
            }
            if let Err(error) = self.check() {
                return error;
            }
        }
        self.revoked("its port, or its card, is gone".into())
    }

    /// The error of a lease that was taken back.
    fn revoked(&self, why: String) -> Error {
        Error::Revoked {
            lease: self.id.clone(),
            why,
        }
    }
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.code == "E_NO_SUCH_LEASE")
}

/// What the next broker said of a lease that was given back to it. The one before may have taken it back and died before it
/// said so; or the next one has found already that nobody has it.
fn ended(given: Result<()>) -> Result<()> {
    match given {
        Err(error) if is_unknown(&error) => Ok(()),
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::played::{Client, PlayedBroker, WELCOME};

    const RESUME: &str = r#"{"type":"resume","request":1,"lease":"lease-00000001"}"#;
    const REVOKED: &str = r#"{"type":"revoked","lease":"lease-00000001","why":"root took it back"}"#;

    fn returned(request: u32) -> String {
        format!(r#"{{"type":"return","request":{request},"lease":"lease-00000001"}}"#)
    }

    fn done(request: u32) -> String {
        format!(r#"{{"type":"done","request":{request}}}"#)
    }

    fn unknown(request: u32) -> String {
        format!(
            r#"{{"type":"error","request":{request},"error":{{"code":"E_NO_SUCH_LEASE","what":"a","why":"b","next":"c"}}}}"#
        )
    }

    /// Where the next broker listens, and the lease of one that has ended.
    fn orphan(name: &str) -> (PlayedBroker, Link) {
        let next = PlayedBroker::new(name);
        let link = Link {
            id: "lease-00000001".into(),
            path: next.path().to_owned(),
            tie: Tie::Loose,
            searched: Instant::now().checked_sub(2 * SEARCH).unwrap(),
        };
        (next, link)
    }

    /// A lease that the next broker was told of, and the broker's end of the connection.
    fn told(name: &str) -> (PlayedBroker, Client, Link) {
        let (next, mut link) = orphan(name);
        link.check().unwrap();
        let client = next.accept();
        assert!(client.hear().contains(r#""type":"hello""#));
        // It has not said who it is: nothing is asked of it, and nobody waits.
        link.check().unwrap();
        assert!(client.is_silent());
        client.say(WELCOME);
        link.check().unwrap();
        assert_eq!(client.hear(), RESUME);
        (next, client, link)
    }

    /// Gives it back to a broker that answers so.
    fn give_back(mut link: Link, answering: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(answering);
            link.give_back().unwrap();
        });
    }

    #[test]
    fn a_broker_that_hangs_holds_nobody_and_has_the_lease_when_it_goes_on() {
        let (next, client, mut link) = told("hangs");
        for _ in 0..3 {
            link.check().unwrap();
            // To close it would end the lease, when the broker goes on.
            assert!(client.is_silent());
            assert!(next.is_alone());
        }
        client.say(&done(1));
        link.check().unwrap();
        assert!(matches!(link.tie, Tie::Held(_)));
        client.say(REVOKED);
        let why = link.check().unwrap_err();
        assert_eq!(why.code(), "E_LEASE_REVOKED");
        assert!(why.to_string().contains("root took it back"), "{why}");
    }

    #[test]
    fn a_port_that_is_gone_is_told_of_in_the_words_of_the_broker_that_deleted_it() {
        let (_next, client, mut link) = told("gone");
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                client.say(&done(1));
                client.say(REVOKED);
            });
            link.gone().to_string()
        });
        assert!(said.contains("root took it back"), "{said}");
    }

    #[test]
    fn a_broker_that_ends_before_it_answers_is_followed_by_another() {
        let (next, client, mut link) = told("ends");
        drop(client);
        link.check().unwrap();
        assert!(matches!(link.tie, Tie::Loose));
        link.searched = Instant::now().checked_sub(2 * SEARCH).unwrap();
        link.check().unwrap();
        assert!(next.accept().hear().contains(r#""type":"hello""#));
    }

    #[test]
    fn a_broker_that_does_not_know_the_lease_ends_it() {
        let (_next, client, mut link) = told("unknown");
        client.say(&unknown(1));
        assert_eq!(link.check().unwrap_err().code(), "E_LEASE_REVOKED");
    }

    #[test]
    fn a_lease_is_given_back_to_a_broker_that_has_not_said_yet_that_it_knows_it() {
        for (name, answers) in [("knows", [done(1), done(2)]), ("not", [unknown(1), unknown(2)])] {
            let (_next, client, link) = told(name);
            give_back(link, || {
                assert_eq!(client.hear(), returned(2));
                for each in &answers {
                    client.say(each);
                }
            });
        }
    }

    #[test]
    fn a_lease_is_given_back_to_the_broker_that_came_after_its_own() {
        // The second had ended it already.
        for (name, answer) in [("next", done(1)), ("ended", unknown(1))] {
            let (next, link) = orphan(name);
            give_back(link, || {
                let client = next.accept();
                client.hear();
                client.say(WELCOME);
                assert_eq!(client.hear(), returned(1));
                client.say(&answer);
            });
        }
    }

    #[test]
    fn a_broker_that_hangs_is_left_with_the_return_and_a_closed_connection() {
        let (_next, client, mut link) = told("left");
        let why = link.give_back_until(Instant::now()).unwrap_err();
        assert_eq!(why.code(), "E_BROKER_PROTOCOL");
        drop(link);
        assert_eq!(client.hear(), returned(2));
        assert!(client.has_closed());
    }

    #[test]
    fn a_lease_ends_without_a_broker_that_answers() {
        let (next, mut link) = orphan("silent");
        link.check().unwrap();
        assert!(matches!(link.tie, Tie::Greeted(_)));
        drop(next);
        link.give_back().unwrap();
    }
}
