//! Any bytes as a vhost-user connection to the device end.

use std::os::fd::AsFd;

use bifurcate_datapath::device::vhost::Session;
use bifurcate_datapath::vhost_user::Inbox;
use bifurcate_linux::event::EventFd;
use bifurcate_linux::memory::{MemoryFile, PageKind};

/// Feeds `data` to a session, with as many descriptors beside each message as its first bytes say.
///
/// # Panics
/// When something is wrong.
pub fn messages(data: &[u8]) {
    let Ok(mut session) = Session::alone(2) else {
        return;
    };
    let mut inbox = Inbox::default();
    let mut rest = data;
    while !rest.is_empty() {
        let count = inbox.wanted().min(rest.len());
        let (now, later) = rest.split_at(count);
        inbox.space().0[..count].copy_from_slice(now);
        rest = later;
        let mut message = match inbox.received(count) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(_) => return,
        };
        // SET_MEM_TABLE, SET_VRING_KICK, _CALL and _ERR carry descriptors; others do when a bit says so.
        let fds = match message.request {
            5 => usize::from(message.payload.first().copied().unwrap_or(0) & 15),
            12..=14 => 1,
            other => usize::from(other & 0x100 != 0),
        };
        for _ in 0..fds {
            let fd = if message.request == 5 {
                MemoryFile::create("bf-fuzz", 1 << 16, PageKind::Ordinary).and_then(|file| {
                    file.as_fd()
                        .try_clone_to_owned()
                        .map_err(|e| bifurcate_linux::Error::io("dup", "", &e))
                })
            } else {
                EventFd::new().map(Into::into)
            };
            let Ok(fd) = fd else { return };
            message.fds.push(fd);
        }
        if session.handle(message).is_err() {
            return;
        }
    }
}
