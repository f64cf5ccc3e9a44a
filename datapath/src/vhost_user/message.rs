//! The bytes of a message: a header of three numbers, a payload, and descriptors beside them.

use std::fmt;
use std::os::fd::OwnedFd;

use super::{REGIONS_MAX, request};

/// Bytes of a header: request, flags, size of the payload; 32 bits each, in the machine's order.
pub const HEADER: usize = 12;

/// Most bytes of a payload that is understood here; a memory table of 8 regions has 264.
pub const PAYLOAD_MAX: usize = 512;

/// Bits of the flags: the version, this is a reply, a reply is asked for.
const VERSION_MASK: u32 = 3;
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Another version than 1.
    Version(u32),
    /// A payload longer than [`PAYLOAD_MAX`].
    TooLong(u32),
    /// A payload that does not have the length that the request has.
    Size(u32, u32),
    /// Fewer or more descriptors than the request has.
    Descriptors(u32, usize),
    /// More regions than [`REGIONS_MAX`].
    Regions(u32),
    /// The connection ended within a message.
    Cut(usize),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Version(version) => write!(f, "version {version} instead of 1"),
            Malformed::TooLong(size) => write!(f, "a payload of {size} bytes; the longest has {PAYLOAD_MAX}"),
            Malformed::Size(request, size) => write!(f, "request {request} with a payload of {size} bytes"),
            Malformed::Descriptors(request, count) => write!(f, "request {request} with {count} descriptors"),
            Malformed::Regions(count) => {
                write!(f, "a memory table of {count} regions; the most is {REGIONS_MAX}")
            }
            Malformed::Cut(bytes) => write!(
                f,
                "the connection ended within a message, after {bytes} bytes of it"
            ),
        }
    }
}

/// One message with its descriptors.
#[derive(Debug, Default)]
pub struct Message {
    /// What is asked.
    pub request: u32,
    flags: u32,
    /// What is said with it.
    pub payload: Vec<u8>,
    /// Descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// A ring's number and a number for it (struct vhost_vring_state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The ring.
    pub index: u32,
    /// The number.
    pub num: u32,
}

/// Where a ring is, as user addresses (struct vhost_vring_addr).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The ring.
    pub index: u32,
    /// Bit 0: writes are logged.
    pub flags: u32,
    /// The descriptors.
    pub desc: u64,
    /// The used ring, or the device's event.
    pub used: u64,
    /// The available ring, or the driver's event.
    pub avail: u64,
    /// The log.
    pub log: u64,
}

/// One region of a memory table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Its first address in descriptors.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// Its first address for rings.
    pub user: u64,
    /// Where in the descriptor's file it begins.
    pub offset: u64,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked.
    pub request: u32,
    /// Version, reply, reply asked for.
    pub flags: u32,
    /// Bytes of the payload.
    pub size: u32,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// A version that is not 1, a payload that is too long.
    pub fn read(bytes: &[u8; HEADER]) -> Result<Header, Malformed> {
        let [request, flags, size] = [0, 4, 8].map(|at| number(&bytes[..], at));
        if flags & VERSION_MASK != VERSION {
            return Err(Malformed::Version(flags & VERSION_MASK));
        }
        if size as usize > PAYLOAD_MAX {
            return Err(Malformed::TooLong(size));
        }
        Ok(Header { request, flags, size })
    }
}

impl Message {
    /// A request, or a reply to one.
    #[must_use]
    pub fn new(request: u32, payload: Vec<u8>) -> Message {
        Message {
            request,
            flags: VERSION,
            payload,
            fds: Vec::new(),
        }
    }

    /// What was received.
    #[must_use]
    pub fn received(header: Header, payload: Vec<u8>, fds: Vec<OwnedFd>) -> Message {
        Message {
            request: header.request,
            flags: header.flags,
            payload,
            fds,
        }
    }

    /// Asks for a reply, as REPLY_ACK lets.
    #[must_use]
    pub fn asking(mut self) -> Message {
        self.flags |= NEED_REPLY;
        self
    }

    /// Marks it as a reply.
    #[must_use]
    pub fn as_reply(mut self) -> Message {
        self.flags |= REPLY;
        self
    }

    /// Whether a reply is asked for.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Whether it is a reply.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// A request with one 64-bit number.
    #[must_use]
    pub fn of_number(request: u32, number: u64) -> Message {
        Message::new(request, number.to_ne_bytes().to_vec())
    }

    /// A request about a ring.
    #[must_use]
    pub fn of_state(request: u32, index: u32, num: u32) -> Message {
        Message::new(request, [index.to_ne_bytes(), num.to_ne_bytes()].concat())
    }

    /// SET_VRING_ADDR.
    #[must_use]
    pub fn of_addresses(of: &Addresses) -> Message {
        let mut payload = [of.index.to_ne_bytes(), of.flags.to_ne_bytes()].concat();
        for address in [of.desc, of.used, of.avail, of.log] {
            payload.extend(address.to_ne_bytes());
        }
        Message::new(request::SET_VRING_ADDR, payload)
    }

    /// SET_MEM_TABLE.
    #[must_use]
    pub fn of_memory(regions: &[MemoryRegion]) -> Message {
        let mut payload = [(regions.len() as u32).to_ne_bytes(), [0; 4]].concat();
        for region in regions {
            for number in [region.guest, region.size, region.user, region.offset] {
                payload.extend(number.to_ne_bytes());
            }
        }
        Message::new(request::SET_MEM_TABLE, payload)
    }

    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let size = self.payload.len() as u32;
        let mut bytes = [self.request, self.flags, size].map(u32::to_ne_bytes).concat();
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The payload as one 64-bit number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&self) -> Result<u64, Malformed> {
        self.exactly(8)?;
        Ok(number64(&self.payload, 0))
    }

    /// The payload as a ring's number and a number for it.
    ///
    /// # Errors
    /// When it is something else.
    pub fn state(&self) -> Result<State, Malformed> {
        self.exactly(8)?;
        Ok(State {
            index: number(&self.payload, 0),
            num: number(&self.payload, 4),
        })
    }

    /// The payload as the addresses of a ring.
    ///
    /// # Errors
    /// When it is something else.
    pub fn addresses(&self) -> Result<Addresses, Malformed> {
        self.exactly(40)?;
        let [desc, used, avail, log] = [8, 16, 24, 32].map(|at| number64(&self.payload, at));
        Ok(Addresses {
            index: number(&self.payload, 0),
            flags: number(&self.payload, 4),
            desc,
            used,
            avail,
            log,
        })
    }

    /// The payload as a memory table; there is a descriptor for each region.
    ///
    /// # Errors
    /// When it is something else, or the descriptors are fewer or more.
    pub fn memory(&self) -> Result<Vec<MemoryRegion>, Malformed> {
        if self.payload.len() < 8 {
            return Err(self.wrong_size());
        }
        let count = number(&self.payload, 0);
        if count as usize > REGIONS_MAX {
            return Err(Malformed::Regions(count));
        }
        let count = count as usize;
        // A front end may send the whole table, used or not.
        if self.payload.len() < 8 + 32 * count {
            return Err(self.wrong_size());
        }
        if self.fds.len() != count {
            return Err(Malformed::Descriptors(self.request, self.fds.len()));
        }
        Ok((0..count)
            .map(|index| {
                let [guest, size, user, offset] =
                    [0, 8, 16, 24].map(|at| number64(&self.payload, 8 + 32 * index + at));
                MemoryRegion {
                    guest,
                    size,
                    user,
                    offset,
                }
            })
            .collect())
    }

    /// The payload as a ring's number with an event for it: bits 0 to 7, and bit 8 when there is none.
    ///
    /// # Errors
    /// When it is something else, or the descriptor is missing or one too many.
    pub fn event(&mut self) -> Result<(u32, Option<OwnedFd>), Malformed> {
        let number = self.number()?;
        let none = number & 0x100 != 0;
        if self.fds.len() != usize::from(!none) {
            return Err(Malformed::Descriptors(self.request, self.fds.len()));
        }
        Ok(((number & 0xff) as u32, self.fds.pop()))
    }

    fn exactly(&self, size: usize) -> Result<(), Malformed> {
        if self.payload.len() == size {
            Ok(())
        } else {
            Err(self.wrong_size())
        }
    }

    fn wrong_size(&self) -> Malformed {
        Malformed::Size(self.request, self.payload.len() as u32)
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(out)
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(out)
}
