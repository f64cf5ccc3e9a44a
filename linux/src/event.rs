//! Waiting: event descriptors, and poll(2) over several descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::{Error, Result};

/// A counter in the kernel (eventfd) that one thread raises and another sleeps on.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Makes one: non-blocking, close-on-exec, at zero.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<EventFd> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(EventFd)
            .map_err(|e| Error::rustix("eventfd2", "0 cloexec nonblock", e))
    }

    /// Raises the counter: whoever polls the descriptor wakes. A full counter is as good as a raised one.
    pub fn raise(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes the counter back to zero; true when it had been raised.
    pub fn lower(&self) -> bool {
        let mut count = [0u8; 8];
        matches!(rustix::io::read(&self.0, &mut count), Ok(8))
    }

    /// A second descriptor of the same counter.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn duplicate(&self) -> Result<EventFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 0)
            .map(EventFd)
            .map_err(|e| Error::rustix("fcntl", "F_DUPFD_CLOEXEC eventfd", e))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Until it can be read.
    Read,
    /// Until it can be written.
    Write,
    /// Until either.
    ReadWrite,
    /// Only trouble: an error or the other side gone.
    Trouble,
}

/// What poll(2) said of one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// POLLIN.
    pub read: bool,
    /// POLLOUT.
    pub write: bool,
    /// POLLERR: for a packet socket its device went down; for AF_XDP it is not bound any more.
    pub error: bool,
    /// POLLHUP or POLLNVAL.
    pub gone: bool,
}

impl Ready {
    /// Whether anything at all was said.
    #[must_use]
    pub fn any(self) -> bool {
        self.read || self.write || self.error || self.gone
    }
}

/// Most descriptors that one [`wait`] takes: a loop has its queues and a stop event, nothing more.
pub const WAIT_MAX: usize = 64;

/// Sleeps until one of `fds` is ready or `timeout` has passed (`None`: for ever; zero: only look).
///
/// Fills `ready` (as long as `fds`) and gives how many are ready: 0 after the timeout, or when a signal
/// came. Polling an AF_XDP socket also wakes its driver when that asked for it (need_wakeup).
///
/// # Errors
/// Whatever ppoll(2) reports, except `EINTR`.
///
/// # Panics
/// When `ready` is shorter than `fds`, or `fds` longer than [`WAIT_MAX`].
pub fn wait(
    fds: &[(BorrowedFd<'_>, Interest)],
    ready: &mut [Ready],
    timeout: Option<Duration>,
) -> Result<usize> {
    assert!(fds.len() <= WAIT_MAX && ready.len() >= fds.len());
    let mut list: [std::mem::MaybeUninit<PollFd<'_>>; WAIT_MAX] =
        [const { std::mem::MaybeUninit::uninit() }; WAIT_MAX];
    for (slot, (fd, interest)) in list.iter_mut().zip(fds) {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            Interest::ReadWrite => PollFlags::IN | PollFlags::OUT,
            Interest::Trouble => PollFlags::empty(),
        };
        slot.write(PollFd::from_borrowed_fd(*fd, flags));
    }
    // SAFETY: the first `fds.len()` slots were written just above, and PollFd needs no drop.
    let list = unsafe { &mut *(std::ptr::from_mut(&mut list[..fds.len()]) as *mut [PollFd<'_>]) };
    let timeout = timeout.map(|t| Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let count = match rustix::event::poll(list, timeout.as_ref()) {
        Ok(count) => count,
        Err(rustix::io::Errno::INTR) => 0,
        Err(e) => return Err(Error::rustix("ppoll", format!("{} descriptors", fds.len()), e)),
    };
    for (out, polled) in ready.iter_mut().zip(list.iter()) {
        let got = if count == 0 {
            PollFlags::empty()
        } else {
            polled.revents()
        };
        *out = Ready {
            read: got.contains(PollFlags::IN),
            write: got.contains(PollFlags::OUT),
            error: got.contains(PollFlags::ERR),
            gone: got.intersects(PollFlags::HUP | PollFlags::NVAL),
        };
    }
    Ok(count)
}

/// [`wait`] for one descriptor.
///
/// # Errors
/// As [`wait`].
pub fn wait_one(fd: BorrowedFd<'_>, interest: Interest, timeout: Option<Duration>) -> Result<Ready> {
    let mut ready = [Ready::default()];
    wait(&[(fd, interest)], &mut ready, timeout)?;
    Ok(ready[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_event_wakes_the_right_descriptor_once() {
        let (quiet, raised) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        raised.duplicate().unwrap().raise();
        let mut ready = [Ready::default(); 2];
        let fds = [(quiet.as_fd(), Interest::Read), (raised.as_fd(), Interest::Read)];
        assert_eq!(wait(&fds, &mut ready, None).unwrap(), 1);
        assert!(!ready[0].any() && ready[1].read);
        assert!(raised.lower());
        assert!(!raised.lower());
        assert_eq!(wait(&fds, &mut ready, Some(Duration::ZERO)).unwrap(), 0);
        assert!(!ready[1].any());
    }

    #[test]
    fn a_closed_pipe_is_told_as_gone() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        assert!(wait_one(reader.as_fd(), Interest::Read, None).unwrap().gone);
    }
}
