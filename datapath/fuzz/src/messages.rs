//! Any bytes as a vhost-user connection to the device end.

use std::os::fd::{AsFd, OwnedFd};

use bifurcate_datapath::device::vhost::Session;
use bifurcate_datapath::ring::virtio::feature;
use bifurcate_datapath::vhost_user::message::MemoryRegion;
use bifurcate_datapath::vhost_user::{Inbox, Message, PROTOCOL_FEATURES, request};
use bifurcate_linux::Result;
use bifurcate_linux::event::EventFd;
use bifurcate_linux::memory::{MemoryFile, PageKind};

/// Bytes of every memory file that comes with a message.
const MEMORY: usize = 1 << 16;

/// How far an input came, so that a run on fixed bytes can tell that it tried what it is there to try.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Messages that were understood and done.
    pub handled: u32,
    /// Replies to them.
    pub replies: u32,
    /// Of them: memory tables of at least one region.
    pub tables: u32,
    /// Of them: such as left a ring running.
    pub live: u32,
}

/// Feeds the bytes after the first to a session. The first says how that begins: at nothing, or (bit 0) where features
/// are agreed on, with event index and order (bit 1), packed rings (bit 2), rings to be enabled (bit 3), and the whole of
/// one memory file is known at address 0.
///
/// # Panics
/// When something is wrong.
pub fn messages(data: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let (Ok(mut session), Some((&first, mut rest))) = (Session::alone(2), data.split_first()) else {
        return reached;
    };
    if first & 1 != 0 && begin(&mut session, first).is_err() {
        return reached;
    }
    let mut inbox = Inbox::default();
    while !rest.is_empty() {
        let count = inbox.wanted().min(rest.len());
        let (now, later) = rest.split_at(count);
        inbox.space().0[..count].copy_from_slice(now);
        rest = later;
        let mut message = match inbox.received(count) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(_) => return reached,
        };
        let at = |at: usize| message.payload.get(at).copied().unwrap_or(0);
        // A table has a descriptor a region, a ring's event one where its number's bit 8 does not say that there is none;
        // another number when a byte that else means nothing says so.
        let fds = match message.request {
            request::SET_MEM_TABLE if at(4) < 0xf0 => at(0) & 15,
            request::SET_MEM_TABLE => at(4) & 15,
            request::SET_VRING_KICK..=request::SET_VRING_ERR => at(7) >> 7 | (at(1) & 1 ^ 1),
            other => u8::from(other & 0x100 != 0),
        };
        let table = message.request == request::SET_MEM_TABLE && fds > 0;
        for _ in 0..fds {
            let fd = if table {
                memory()
            } else {
                EventFd::new().map(Into::into)
            };
            let Ok(fd) = fd else { return reached };
            message.fds.push(fd);
        }
        match session.handle(message) {
            Ok(reply) => {
                reached.handled += 1;
                reached.replies += u32::from(reply.is_some());
                reached.tables += u32::from(table);
                reached.live += u32::from(session.is_live());
            }
            Err(_) => return reached,
        }
    }
    reached
}

fn memory() -> Result<OwnedFd> {
    let file = MemoryFile::create("bf-fuzz", MEMORY, PageKind::Ordinary)?;
    file.as_fd()
        .try_clone_to_owned()
        .map_err(|e| bifurcate_linux::Error::io("dup", "", &e))
}

/// What every driver says first.
fn begin(session: &mut Session, first: u8) -> Result<()> {
    let when = |bit: u8, what: u64| if first & bit != 0 { what } else { 0 };
    let features = feature::VERSION_1
        | when(2, feature::EVENT_IDX | feature::IN_ORDER)
        | when(4, feature::RING_PACKED)
        | when(8, PROTOCOL_FEATURES);
    session.handle(Message::of_number(request::SET_FEATURES, features))?;
    let mut table = Message::of_memory(&[MemoryRegion {
        size: MEMORY as u64,
        ..MemoryRegion::default()
    }]);
    table.fds.push(memory()?);
    session.handle(table).map(|_| ())
}
