//! A connection that messages go over.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::stream::Stream;
use bifurcate_linux::{Error, Result};

use super::{Inbox, Inner, Malformed, Message};

const EPROTO: i32 = 71;
const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;
const ECANCELED: i32 = 125;

/// How long to wait for the other end to read a message.
const PATIENCE: Duration = Duration::from_secs(2);

/// One end of a vhost-user connection.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    inbox: Inbox,
    /// Whose stop ends a wait for a reply.
    inner: Option<Arc<Inner>>,
}

impl Link {
    /// Over a connected socket.
    #[must_use]
    pub fn new(stream: Stream) -> Link {
        Link {
            stream,
            inbox: Inbox::default(),
            inner: None,
        }
    }

    /// Waits for replies until `inner` is stopped, and no longer.
    #[must_use]
    pub fn until_stopped(mut self, inner: &Arc<Inner>) -> Link {
        self.inner = Some(Arc::clone(inner));
        self
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the other end does not read, `EPIPE` when it is gone.
    pub fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.stream.send(&message.bytes(), fds, PATIENCE)
    }

    /// The next message that is there in full; `None` when there is none now.
    ///
    /// # Errors
    /// `ECONNRESET` when the other end has closed; `EPROTO` when it closed within a message, or what it sent is none.
    pub fn receive(&mut self) -> Result<Option<Message>> {
        loop {
            let (bytes, fds) = self.inbox.space();
            let count = match self.stream.receive(bytes, fds)? {
                None => return Ok(None),
                Some(0) => {
                    self.inbox.ended().map_err(malformed)?;
                    return Err(Error::new("vhost-user", "the other end has closed", ECONNRESET));
                }
                Some(count) => count,
            };
            if let Some(message) = self.inbox.received(count).map_err(malformed)? {
                return Ok(Some(message));
            }
        }
    }

    /// Sends a message and waits for the reply to it.
    ///
    /// # Errors
    /// `ETIMEDOUT` when none comes within `patience`; `ECANCELED` when the port is closed meanwhile; as
    /// [`Link::receive`].
    pub fn ask(&mut self, message: &Message, fds: &[BorrowedFd<'_>], patience: Duration) -> Result<Message> {
        self.send(message, fds)?;
        let deadline = Instant::now() + patience;
        loop {
            // Before the look: one follows however long this thread was kept from running.
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(reply) = self.receive()? {
                if reply.is_reply() && reply.request == message.request {
                    return Ok(reply);
                }
                let what = format!(
                    "request {} while the reply to {} was awaited",
                    reply.request, message.request
                );
                return Err(Error::new("vhost-user", what, EPROTO));
            }
            if left.is_zero() {
                let what = format!("request {}: no reply within {patience:?}", message.request);
                return Err(Error::new("vhost-user", what, ETIMEDOUT));
            }
            let Some(inner) = &self.inner else {
                wait_one(self.stream.as_fd(), Interest::Read, Some(left))?;
                continue;
            };
            inner.wait(&[(self.stream.as_fd(), Interest::Read)], Some(left))?;
            if inner.is_stopped() {
                return Err(Error::new("vhost-user", "the port is being closed", ECANCELED));
            }
        }
    }

    /// Ends the connection.
    pub fn shut(&self) {
        self.stream.shut();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// As an error of the connection.
pub(crate) fn malformed(what: Malformed) -> Error {
    Error::new("vhost-user", what.to_string(), EPROTO)
}
