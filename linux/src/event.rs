//! Waiting: event descriptors, and poll(2) over several descriptors.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll};

use crate::{Error, Result};

/// A counter in the kernel (eventfd) that one thread raises and another sleeps on.
///
/// No call here blocks, whatever another process does that has the descriptor too.
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
    /// Another process has it, or may have: O_NONBLOCK, a flag of the open file, is then not to be relied on.
    shared: bool,
}

impl EventFd {
    /// Makes one: non-blocking, close-on-exec, at zero.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<EventFd> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(|fd| EventFd { fd, shared: false })
            .map_err(|e| Error::rustix("eventfd2", "0 cloexec nonblock", e))
    }

    /// As [`EventFd::new`], for one whose descriptor another process is to be sent.
    ///
    /// # Errors
    /// As [`EventFd::new`].
    pub fn to_share() -> Result<EventFd> {
        let event = EventFd::new()?;
        Ok(EventFd {
            shared: true,
            ..event
        })
    }

    /// Raises the counter: whoever polls the descriptor wakes. A full counter is as good as a raised one.
    pub fn raise(&self) {
        if self.shared && crate::aio::raise(self.fd.as_fd()) {
            return;
        }
        // Where there is no aio(7): whoever takes the flag back and fills the counter in one instant makes this wait.
        if self.shared && !self.is_writable() {
            return;
        }
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    fn is_writable(&self) -> bool {
        let _ = self.set_nonblocking();
        wait_one(self.fd.as_fd(), Interest::Write, Some(Duration::ZERO)).is_ok_and(|ready| ready.write)
    }

    fn set_nonblocking(&self) -> rustix::io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.fd)?;
        rustix::fs::fcntl_setfl(&self.fd, flags | rustix::fs::OFlags::NONBLOCK)
    }

    /// Takes the counter back to zero; true when it had been raised.
    pub fn lower(&self) -> bool {
        let mut count = [0u8; 8];
        // Offset -1: read as read(2) does. RWF_NOWAIT holds for this call, whatever flags the file has.
        let mut into = [rustix::io::IoSliceMut::new(&mut count)];
        let read = rustix::io::preadv2(&self.fd, &mut into, u64::MAX, rustix::io::ReadWriteFlags::NOWAIT);
        matches!(read, Ok(8))
    }

    /// A second descriptor of the same counter.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn duplicate(&self) -> Result<EventFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map(|fd| EventFd {
                fd,
                shared: self.shared,
            })
            .map_err(|e| Error::rustix("fcntl", "F_DUPFD_CLOEXEC eventfd", e))
    }
}

impl EventFd {
    /// The event behind a descriptor that another process sent. `None` when it is no eventfd: writing to anything else
    /// could block, or do something.
    #[must_use]
    pub fn received(fd: OwnedFd) -> Option<EventFd> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let target = rustix::fs::readlink(link, Vec::new()).ok()?;
        if target.as_bytes() != b"anon_inode:[eventfd]" {
            return None;
        }
        let event = EventFd { fd, shared: true };
        event.set_nonblocking().ok()?;
        Some(event)
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> OwnedFd {
        event.fd
    }
}

/// One descriptor that is readable when one of several was raised: those may be put in and taken out while somebody
/// waits for it.
#[derive(Debug)]
pub struct EventSet(OwnedFd);

impl EventSet {
    /// An empty set.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<EventSet> {
        epoll::create(epoll::CreateFlags::CLOEXEC)
            .map(EventSet)
            .map_err(|e| Error::rustix("epoll_create1", "cloexec", e))
    }

    /// Puts an event in. The set notices each raise once, without taking the event back to zero: another process may
    /// have the same event, and reading it could block.
    ///
    /// # Errors
    /// `EEXIST` when it is in, `ENOMEM`, `ENOSPC`.
    pub fn add(&self, event: &EventFd) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.0, event, epoll::EventData::new_u64(0), flags)
            .map_err(|e| Error::rustix("epoll_ctl", "EPOLL_CTL_ADD eventfd", e))
    }

    /// Takes an event out. One that is not in is let be.
    pub fn remove(&self, event: &EventFd) {
        let _ = epoll::delete(&self.0, event);
    }

    /// Forgets what was raised so far; true when something was.
    pub fn lower(&self) -> bool {
        let mut events = [std::mem::MaybeUninit::uninit(); 8];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(&self.0, &mut events, Some(&now)).is_ok_and(|(said, _)| !said.is_empty())
    }
}

impl AsFd for EventSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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
    fn a_set_notices_each_raise_of_its_events_and_reads_none() {
        let set = EventSet::new().unwrap();
        let (a, b) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        set.add(&a).unwrap();
        set.add(&b).unwrap();
        let readable = || {
            wait_one(set.as_fd(), Interest::Read, Some(Duration::ZERO))
                .unwrap()
                .read
        };
        assert!(!readable() && !set.lower());
        for event in [&a, &b, &b] {
            event.raise();
            assert!(readable() && set.lower() && !readable());
        }
        set.remove(&b);
        b.raise();
        assert!(!readable());
        assert!(b.lower(), "still raised");
    }

    #[test]
    fn a_descriptor_that_is_no_event_is_not_taken_for_one() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(EventFd::received(reader).is_none());
        let event = EventFd::new().unwrap();
        let other = EventFd::received(event.duplicate().unwrap().into()).unwrap();
        other.raise();
        assert!(event.lower());
    }

    #[test]
    fn an_event_that_another_process_made_blocking_and_full_blocks_nobody() {
        for event in [
            EventFd::to_share().unwrap(),
            EventFd::received(EventFd::new().unwrap().into()).unwrap(),
        ] {
            let theirs = event.as_fd().try_clone_to_owned().unwrap();
            let flags = rustix::fs::fcntl_getfl(&theirs).unwrap();
            rustix::fs::fcntl_setfl(&theirs, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
            assert!(!event.lower(), "nothing is there");
            // As full as a write makes it (eventfd(2)): one more would wait.
            assert_eq!(rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()), Ok(8));
            event.raise();
            rustix::fs::fcntl_setfl(&theirs, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
            assert!(event.lower() && !event.lower());
            for _ in 0..3 {
                event.raise();
            }
            assert!(event.lower() && !event.lower());
        }
    }

    #[test]
    fn a_closed_pipe_is_told_as_gone() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        assert!(wait_one(reader.as_fd(), Interest::Read, None).unwrap().gone);
    }
}
