//! Unix stream sockets that carry descriptors: what vhost-user runs over.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::event::{Interest, wait_one};
use crate::{Error, Result};

/// Most descriptors that one message carries here.
pub const FDS_MAX: usize = 32;

fn socket() -> Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| Error::rustix("socket", "AF_UNIX stream", e))
}

fn address(path: &Path, call: &'static str) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|e| Error::rustix(call, format!("path={}", path.display()), e))
}

/// A socket that waits for others to connect. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file: only that one is removed.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at `path`. A file that a listener before this one left, and on which nobody listens, is taken over; of
    /// several that come at once one listens, and the others are refused.
    ///
    /// # Errors
    /// `EADDRINUSE` when somebody listens there, or the file is no socket; what bind(2) and listen(2) report.
    pub fn bind(path: &Path) -> Result<Listener> {
        let named = |e| Error::rustix("bind", format!("path={}", path.display()), e);
        let place = address(path, "bind")?;
        let socket = socket()?;
        // Between bind(2) and listen(2) a socket looks abandoned.
        let _turn = turn(path);
        let bound = match rustix::net::bind(&socket, &place) {
            Err(Errno::ADDRINUSE) if is_abandoned(path) => {
                rustix::fs::unlink(path).map_err(named)?;
                rustix::net::bind(&socket, &place)
            }
            bound => bound,
        };
        bound.map_err(named)?;
        let file = rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let listener = Listener {
            socket,
            path: path.to_owned(),
            file,
        };
        rustix::net::listen(&listener.socket, 1)
            .map_err(|e| Error::rustix("listen", format!("path={}", path.display()), e))?;
        Ok(listener)
    }

    /// The next connection; `None` when nobody waits.
    ///
    /// # Errors
    /// What accept4(2) reports.
    pub fn accept(&self) -> Result<Option<Stream>> {
        match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(Stream(socket))),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(Error::rustix(
                "accept4",
                format!("path={}", self.path.display()),
                e,
            )),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = rustix::fs::stat(&self.path).ok();
        if now.map(|stat| (stat.st_dev, stat.st_ino)) == self.file {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Holds the lock of the folder (flock(2)) while a socket in it is looked at, removed and bound. Anybody who can read the
/// folder can hold it for ever, so it is not waited for long, and done without then.
fn turn(path: &Path) -> Option<OwnedFd> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).ok()?;
    for _ in 0..100 {
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(folder);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Whether the file is a socket on which nobody listens.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = rustix::fs::lstat(path)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket);
    is_socket && Stream::connect(path).is_err_and(|e| e.errno == libc::ECONNREFUSED)
}

/// A connected socket. It never blocks.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Connects to a listener.
    ///
    /// # Errors
    /// `ENOENT` without the file, `ECONNREFUSED` when nobody listens, and what connect(2) reports.
    pub fn connect(path: &Path) -> Result<Stream> {
        let place = address(path, "connect")?;
        let socket = socket()?;
        rustix::net::connect(&socket, &place)
            .map_err(|e| Error::rustix("connect", format!("path={}", path.display()), e))?;
        Ok(Stream(socket))
    }

    /// Two connected ends.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn pair() -> Result<(Stream, Stream)> {
        rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map(|(a, b)| (Stream(a), Stream(b)))
        .map_err(|e| Error::rustix("socketpair", "AF_UNIX stream", e))
    }

    /// Sends all of `bytes`, with descriptors that come with the first of them. Waits up to `patience` for room.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the other end reads nothing, `EPIPE` when it is gone, and what sendmsg(2) reports.
    ///
    /// # Panics
    /// With more than [`FDS_MAX`] descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], patience: Duration) -> Result<()> {
        assert!(fds.len() <= FDS_MAX, "more descriptors than a message carries");
        let failed = |e| Error::rustix("sendmsg", format!("{} bytes, {} fds", bytes.len(), fds.len()), e);
        let mut done = 0;
        while done < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if done == 0 && !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            let part = [IoSlice::new(&bytes[done..])];
            match rustix::net::sendmsg(&self.0, &part, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let ready = wait_one(self.as_fd(), Interest::Write, Some(patience))?;
                    if !ready.any() {
                        return Err(failed(Errno::TIMEDOUT));
                    }
                }
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }

    /// Receives up to `bytes.len()` bytes, and the descriptors that came with them into `fds`. `None` when nothing is
    /// there now; 0 when the other end has closed.
    ///
    /// # Errors
    /// `EMSGSIZE` when there were more than [`FDS_MAX`] descriptors: the kernel has closed the rest. What recvmsg(2)
    /// reports.
    pub fn receive(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<Option<usize>> {
        let room = bytes.len();
        let failed = |e| Error::rustix("recvmsg", format!("{room} bytes"), e);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut part = [IoSliceMut::new(bytes)];
        let got = match rustix::net::recvmsg(&self.0, &mut part, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Ok(Some(0)),
            Err(e) => return Err(failed(e)),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(failed(Errno::MSGSIZE));
        }
        Ok(Some(got.bytes))
    }

    /// Ends the connection in both directions, whoever else holds the descriptor.
    pub fn shut(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventFd;

    const SOON: Duration = Duration::from_millis(200);

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("bf-stream-{}-{name}", std::process::id()))
    }

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (a, b) = Stream::pair().unwrap();
        let event = EventFd::new().unwrap();
        a.send(b"hello", &[event.as_fd()], SOON).unwrap();
        let (mut bytes, mut fds) = ([0; 16], Vec::new());
        assert_eq!(b.receive(&mut bytes[..2], &mut fds).unwrap(), Some(2));
        assert_eq!(fds.len(), 1);
        assert_eq!(b.receive(&mut bytes[2..], &mut fds).unwrap(), Some(3));
        assert_eq!((&bytes[..5], fds.len()), (&b"hello"[..], 1));
        assert_eq!(b.receive(&mut bytes, &mut fds).unwrap(), None);
        drop(a);
        assert_eq!(b.receive(&mut bytes, &mut fds).unwrap(), Some(0));
    }

    #[test]
    fn who_never_reads_is_not_waited_for_for_ever() {
        let (a, _b) = Stream::pair().unwrap();
        let error = a
            .send(&vec![0; 1 << 24], &[], Duration::from_millis(20))
            .unwrap_err();
        assert_eq!(error.code(), "ETIMEDOUT");
    }

    #[test]
    fn of_several_that_come_at_once_one_listens() {
        const COMERS: usize = 4;
        let path = scratch("crowd");
        for _ in 0..100 {
            // What a killed process leaves.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(COMERS);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let come = || {
                    start.wait();
                    Listener::bind(&path)
                };
                let threads: Vec<_> = (0..COMERS).map(|_| scope.spawn(come)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let listening: Vec<_> = bound.iter().flatten().collect();
            assert_eq!(listening.len(), 1, "{bound:?}");
            // Those that only looked whether somebody is there.
            while listening[0].accept().unwrap().is_some() {}
            let _near = Stream::connect(&path).unwrap();
            assert!(listening[0].accept().unwrap().is_some());
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_removes_its_file_and_takes_over_an_abandoned_one() {
        let path = scratch("listener");
        let first = Listener::bind(&path).unwrap();
        assert_eq!(
            Listener::bind(&path).unwrap_err().code(),
            "EADDRINUSE",
            "somebody listens"
        );
        // An abandoned one: the socket is closed and its file stays.
        let copy = scratch("copy");
        std::fs::hard_link(&path, &copy).unwrap();
        drop(first);
        assert!(!path.exists());
        std::fs::rename(&copy, &path).unwrap();
        assert_eq!(Stream::connect(&path).unwrap_err().code(), "ECONNREFUSED");
        let second = Listener::bind(&path).unwrap();
        assert!(second.accept().unwrap().is_none());
        let near = Stream::connect(&path).unwrap();
        let far = second.accept().unwrap().unwrap();
        near.send(b"x", &[], SOON).unwrap();
        assert_eq!(far.receive(&mut [0; 4], &mut Vec::new()).unwrap(), Some(1));
        drop(second);
        assert_eq!(Stream::connect(&path).unwrap_err().code(), "ENOENT");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let path = scratch("file");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(Listener::bind(&path).unwrap_err().code(), "EADDRINUSE");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
    }
}
