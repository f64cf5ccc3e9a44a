//! Messages out of a stream of bytes that arrives in any pieces.

use std::os::fd::OwnedFd;

use super::REGIONS_MAX;
use super::message::{HEADER, Header, Malformed, Message, PAYLOAD_MAX};

/// What has arrived of the next message.
#[derive(Debug)]
pub struct Inbox {
    bytes: [u8; HEADER + PAYLOAD_MAX],
    have: usize,
    header: Option<Header>,
    fds: Vec<OwnedFd>,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox {
            bytes: [0; HEADER + PAYLOAD_MAX],
            have: 0,
            header: None,
            fds: Vec::new(),
        }
    }
}

impl Inbox {
    /// Bytes that complete what is being waited for: never more, since descriptors belong to the message whose bytes
    /// they come with.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.end() - self.have
    }

    /// Where to receive them, and the descriptors that come with them.
    pub fn space(&mut self) -> (&mut [u8], &mut Vec<OwnedFd>) {
        let end = self.end();
        (&mut self.bytes[self.have..end], &mut self.fds)
    }

    /// Takes note of `count` bytes received into [`Inbox::space`]; gives the message that is complete with them.
    ///
    /// # Errors
    /// When this cannot be a message: the stream is then lost.
    pub fn received(&mut self, count: usize) -> Result<Option<Message>, Malformed> {
        // No message has more, and one that is never finished would hold them.
        if self.fds.len() > REGIONS_MAX {
            let request = self.header.map_or(0, |header| header.request);
            return Err(Malformed::Descriptors(request, self.fds.len()));
        }
        self.have = (self.have + count).min(self.end());
        if self.header.is_none() && self.have == HEADER {
            let mut bytes = [0; HEADER];
            bytes.copy_from_slice(&self.bytes[..HEADER]);
            self.header = Some(Header::read(&bytes)?);
        }
        match self.header {
            Some(header) if self.have == self.end() => {
                let payload = self.bytes[HEADER..self.have].to_vec();
                self.have = 0;
                self.header = None;
                Ok(Some(Message::received(
                    header,
                    payload,
                    std::mem::take(&mut self.fds),
                )))
            }
            _ => Ok(None),
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// When that was within a message.
    pub fn ended(&self) -> Result<(), Malformed> {
        if self.have == 0 {
            Ok(())
        } else {
            Err(Malformed::Cut(self.have))
        }
    }

    fn end(&self) -> usize {
        self.header.map_or(HEADER, |header| HEADER + header.size as usize)
    }
}
