//! Local sockets that keep messages apart and carry descriptors (unix(7), SOCK_SEQPACKET), and who is at the other end.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::call::call;
use crate::netns::Netns;
use crate::sockopt;
use crate::{Error, Result};

/// Most descriptors of one message (SCM_MAX_FD, include/net/scm.h).
pub const DESCRIPTORS_MAX: usize = 253;

/// `SO_PEERGROUPS` and `SO_PEERPIDFD` (include/uapi/asm-generic/socket.h).
const SO_PEERGROUPS: i32 = 59;
const SO_PEERPIDFD: i32 = 77;
/// As above, since Linux 6.16: whether descriptors may be sent to the socket.
const SO_PASSRIGHTS: i32 = 83;
/// include/uapi/linux/sockios.h.
const SIOCGSKNS: usize = 0x894c;

/// Waits for connections at a path. The file is removed by whoever made it, not by this type.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// One connection, non-blocking.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// What [`Connection::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// Nothing is there yet.
    Nothing,
    /// The other end is closed.
    End,
    /// A message. `cut`: it, or its list of descriptors, was longer than asked for and the rest is lost.
    Message {
        /// Its bytes, at most as many as the buffer held.
        length: usize,
        /// Its descriptors, close-on-exec.
        descriptors: Vec<OwnedFd>,
        /// Something was lost.
        cut: bool,
    },
}

/// Who connected, as the kernel noted it at connect(2): no claim of the peer's.
#[derive(Debug)]
pub struct Peer {
    /// Its process, in the namespace of the reader; 0 when it has none there.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// A handle of that very process; none when it has ended, or the kernel is older than 5.3.
    pub process: Option<ProcessHandle>,
}

/// A process that cannot be mistaken for a later one of the same number (pidfd_open(2)).
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

fn socket() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|e| Error::rustix("socket", "AF_UNIX seqpacket", e))
}

fn address(path: &Path) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|e| Error::rustix("bind", format!("path={}", path.display()), e))
}

impl Listener {
    /// Listens at `path`, which must not exist. The process's umask says who may connect.
    ///
    /// # Errors
    /// `EADDRINUSE`: the path exists. `EACCES`, `ENOENT`: the folder. `ENAMETOOLONG`: over 107 bytes.
    pub fn bind(path: &Path, backlog: i32) -> Result<Listener> {
        let args = || format!("path={}", path.display());
        let fd = socket()?;
        rustix::net::bind(&fd, &address(path)?).map_err(|e| Error::rustix("bind", args(), e))?;
        rustix::net::listen(&fd, backlog).map_err(|e| Error::rustix("listen", args(), e))?;
        Ok(Listener(fd))
    }

    /// Takes no descriptors over connections from now on: a peer that sends some gets `EPERM` (SO_PASSRIGHTS, Linux
    /// 6.16). False where the kernel does not know of that.
    ///
    /// It matters to who may not wait: the last close of a file can take as long as its sender likes, of a TCP socket
    /// with SO_LINGER for one, and whoever closes a connection closes what is unread in it.
    ///
    /// # Errors
    /// Whatever else setsockopt(2) reports.
    pub fn refuse_descriptors(&self) -> Result<bool> {
        let call_name = "setsockopt(SO_PASSRIGHTS)";
        let no = 0i32;
        match sockopt::set(
            self.as_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            &no,
            call_name,
            String::new,
        ) {
            Ok(()) => Ok(true),
            Err(error) if error.code() == "ENOPROTOOPT" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next connection that waits; none when there is none.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no descriptor left; the connection goes on waiting.
    pub fn accept(&self) -> Result<Option<Connection>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.0, flags) {
            Ok(fd) => Ok(Some(Connection(fd))),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {
                Ok(None)
            }
            Err(e) => Err(Error::rustix("accept4", "AF_UNIX seqpacket", e)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    /// Connects to the listener at `path`.
    ///
    /// # Errors
    /// `ENOENT`, `ECONNREFUSED`: nobody listens there. `EACCES`. `EAGAIN`: its queue is full.
    pub fn connect(path: &Path) -> Result<Connection> {
        let fd = socket()?;
        rustix::net::connect(&fd, &address(path)?)
            .map_err(|e| Error::rustix("connect", format!("path={}", path.display()), e))?;
        Ok(Connection(fd))
    }

    /// Sends one message with descriptors, whole or not at all; false when the peer's buffer is full.
    ///
    /// # Errors
    /// `EPIPE`, `ECONNRESET`: the peer is gone. `EMSGSIZE`: longer than the socket's buffer. `EINVAL`: more than
    /// [`DESCRIPTORS_MAX`] descriptors. `ETOOMANYREFS`: too many descriptors on their way.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<bool> {
        let args = || {
            format!(
                "AF_UNIX seqpacket bytes={} descriptors={}",
                bytes.len(),
                descriptors.len()
            )
        };
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(Error::new("sendmsg", args(), libc::EINVAL));
        }
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(Error::rustix("sendmsg", args(), e)),
        }
    }

    /// Takes one message into `buffer`; keeps at most [`DESCRIPTORS_MAX`] descriptors of it.
    ///
    /// A peer that closed while messages of ours were unread is an end like any other, after what it had sent.
    ///
    /// # Errors
    /// Whatever recvmsg(2) reports.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut receive = |control: &mut RecvAncillaryBuffer<'_>| {
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], control, flags)
        };
        let got = match receive(&mut control) {
            // The error is told once, before the messages that the peer sent before it closed.
            Err(rustix::io::Errno::CONNRESET) => receive(&mut control),
            got => got,
        };
        let message = match got {
            Ok(message) => message,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Received::Nothing),
            Err(e) => return Err(Error::rustix("recvmsg", "AF_UNIX seqpacket", e)),
        };
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                descriptors.extend(fds);
            }
        }
        // An empty message and the end look alike; an empty message is no message of ours.
        let cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        if message.bytes == 0 && descriptors.is_empty() && !cut {
            return Ok(Received::End);
        }
        Ok(Received::Message {
            length: message.bytes,
            descriptors,
            cut,
        })
    }

    /// Who is at the other end: SO_PEERCRED, SO_PEERGROUPS (4.13), SO_PEERPIDFD (6.5; before that pidfd_open(2)).
    ///
    /// # Errors
    /// Whatever getsockopt(2) reports.
    pub fn peer(&self) -> Result<Peer> {
        let got = rustix::net::sockopt::socket_peercred(&self.0)
            .map_err(|e| Error::rustix("getsockopt(SO_PEERCRED)", "", e))?;
        let pid = got.pid.as_raw_nonzero().get() as u32;
        Ok(Peer {
            pid,
            uid: got.uid.as_raw(),
            gid: got.gid.as_raw(),
            groups: self.groups()?,
            process: self.process().or_else(|| ProcessHandle::open(pid).ok()),
        })
    }

    /// The network namespace in which the other end made its socket, where this is the end that accepted: a connection
    /// belongs to the namespace of who asked for it (unix_stream_connect() in net/unix/af_unix.c). Asks for
    /// CAP_NET_ADMIN over that namespace.
    ///
    /// # Errors
    /// `EPERM`: the caller has no right over that namespace.
    pub fn netns(&self) -> Result<Netns> {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.0) as usize;
        // SAFETY: SIOCGSKNS takes no pointer and gives a descriptor.
        let file = unsafe { call(libc::SYS_ioctl, [fd, SIOCGSKNS, 0, 0, 0, 0]) }
            .map_err(|errno| Error::new("ioctl(SIOCGSKNS)", "AF_UNIX seqpacket", errno))?;
        // SAFETY: the kernel just opened this descriptor for us; nobody else knows it.
        let file = unsafe { OwnedFd::from_raw_fd(file as i32) };
        Netns::of_file(file, Path::new("of a connection"))
    }

    fn process(&self) -> Option<ProcessHandle> {
        let mut fd = -1i32;
        let call_name = "getsockopt(SO_PEERPIDFD)";
        sockopt::get(
            self.as_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            &mut fd,
            call_name,
            String::new,
        )
        .ok()?;
        // SAFETY: the kernel just opened this descriptor for us (SO_PEERPIDFD); nobody else knows it.
        (fd >= 0).then(|| ProcessHandle(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn groups(&self) -> Result<Vec<u32>> {
        /// NGROUPS_MAX (include/uapi/linux/limits.h).
        const GROUPS_MAX: usize = 65_536;
        let mut groups = vec![0u32; 64];
        loop {
            let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&self.0) as usize;
            let args = [
                fd,
                libc::SOL_SOCKET as usize,
                SO_PEERGROUPS as usize,
                groups.as_mut_ptr() as usize,
                (&raw mut length) as usize,
                0,
            ];
            // SAFETY: the kernel writes at most `length` bytes, which is how long `groups` is, and the new length.
            match unsafe { call(libc::SYS_getsockopt, args) } {
                Ok(_) => {
                    groups.truncate(length as usize / 4);
                    return Ok(groups);
                }
                Err(libc::ERANGE) if groups.len() < GROUPS_MAX => groups.resize(GROUPS_MAX, 0),
                Err(libc::ENOPROTOOPT) => return Ok(Vec::new()),
                Err(errno) => return Err(Error::new("getsockopt(SO_PEERGROUPS)", "", errno)),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ProcessHandle {
    /// The process with that number now.
    ///
    /// # Errors
    /// `ESRCH`: there is none.
    pub fn open(pid: u32) -> Result<ProcessHandle> {
        let args = || format!("pid={pid}");
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| Error::new("pidfd_open", args(), libc::ESRCH))?;
        rustix::process::pidfd_open(number, PidfdFlags::empty())
            .map(ProcessHandle)
            .map_err(|e| Error::rustix("pidfd_open", args(), e))
    }

    /// Ends it (SIGKILL).
    ///
    /// # Errors
    /// `EPERM`: it is another user's. `ESRCH`: it has ended.
    pub fn kill(&self) -> Result<()> {
        rustix::process::pidfd_send_signal(&self.0, Signal::KILL)
            .map_err(|e| Error::rustix("pidfd_send_signal", "SIGKILL", e))
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Interest, wait_one};
    use crate::memory::{MemoryFile, PageKind};
    use rustix::process::{DumpableBehavior, Gid, set_dumpable_behavior};
    use rustix::thread::{set_thread_groups, set_thread_res_gid};
    use std::time::Duration;

    struct Place(std::path::PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn pair(name: &str) -> (Place, Connection, Connection) {
        let path = std::env::temp_dir().join(format!("bf-seq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = Listener::bind(&path, 4).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = Connection::connect(&path).unwrap();
        let server = listener.accept().unwrap().unwrap();
        (Place(path), client, server)
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (_place, client, server) = pair("whole");
        let file = MemoryFile::create("bf-seq", 8192, PageKind::Ordinary).unwrap();
        assert!(client.send(b"hello", &[file.as_fd(), file.as_fd()]).unwrap());
        assert!(client.send(b"again", &[]).unwrap());
        let mut buffer = [0; 64];
        match server.receive(&mut buffer).unwrap() {
            Received::Message {
                length: 5,
                descriptors,
                cut: false,
            } => assert_eq!((&buffer[..5], descriptors.len()), (&b"hello"[..], 2)),
            other => panic!("{other:?}"),
        }
        let mut short = [0; 3];
        match server.receive(&mut short).unwrap() {
            Received::Message {
                length: 3, cut: true, ..
            } => assert_eq!(&short, b"aga"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(server.receive(&mut buffer).unwrap(), Received::Nothing));
        drop(client);
        assert!(matches!(server.receive(&mut buffer).unwrap(), Received::End));
    }

    #[test]
    fn a_listener_that_takes_no_descriptors_is_sent_none() {
        let path = std::env::temp_dir().join(format!("bf-seq-refuse-{}", std::process::id()));
        let listener = Listener::bind(&path, 4).unwrap();
        let _place = Place(path.clone());
        if !listener.refuse_descriptors().unwrap() {
            return eprintln!("the kernel knows no SO_PASSRIGHTS: before Linux 6.16");
        }
        // Before it is accepted, too.
        let client = Connection::connect(&path).unwrap();
        let file = MemoryFile::create("bf-seq", 8192, PageKind::Ordinary).unwrap();
        let refused = client.send(b"take this", &[file.as_fd()]).unwrap_err();
        assert_eq!(refused.code(), "EPERM");
        assert!(client.send(b"hello", &[]).unwrap());
        let server = listener.accept().unwrap().unwrap();
        assert!(client.send(b"this", &[file.as_fd()]).is_err());
        // The other way they go as ever.
        assert!(server.send(b"granted", &[file.as_fd()]).unwrap());
        let mut buffer = [0; 64];
        let came = |received: Received| match received {
            Received::Message { descriptors, .. } => Some(descriptors.len()),
            _ => None,
        };
        assert_eq!(came(client.receive(&mut buffer).unwrap()), Some(1));
        assert_eq!(came(server.receive(&mut buffer).unwrap()), Some(0));
        assert_eq!(came(server.receive(&mut buffer).unwrap()), None);
    }

    #[test]
    fn what_a_peer_said_before_it_closed_is_heard_although_it_did_not_listen() {
        let (_place, client, server) = pair("reset");
        assert!(client.send(b"unread", &[]).unwrap());
        assert!(server.send(b"full", &[]).unwrap());
        drop(server);
        let mut buffer = [0; 64];
        assert!(matches!(
            client.receive(&mut buffer).unwrap(),
            Received::Message { length: 4, .. }
        ));
        assert!(matches!(client.receive(&mut buffer).unwrap(), Received::End));
    }

    #[test]
    fn the_peer_is_this_process_and_its_handle_shows_that_it_lives() {
        let (_place, _client, server) = pair("peer");
        let peer = server.peer().unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        groups.sort_unstable();
        assert_eq!(peer.groups, groups);
        let process = peer.process.unwrap();
        let ready = wait_one(process.as_fd(), Interest::Read, Some(Duration::ZERO)).unwrap();
        assert!(!ready.any());
    }

    #[test]
    fn the_groups_of_a_peer_are_those_of_who_connected() {
        // None, one, as many as are asked for at first, and more than that.
        for count in [0, 1, 64, 65, 300] {
            let groups: Vec<u32> = (5000..5000 + count).collect();
            let (mine, own) = (groups.clone(), 4711 + count);
            let connected = std::thread::spawn(move || -> rustix::io::Result<_> {
                let mine: Vec<Gid> = mine.into_iter().map(Gid::from_raw).collect();
                let own = Gid::from_raw(own);
                // Of this thread alone: no other test is in these groups.
                set_thread_groups(&mine)?;
                set_thread_res_gid(own, own, own)?;
                // Of the whole process, and off since the line before.
                set_dumpable_behavior(DumpableBehavior::Dumpable)?;
                Ok(pair(&format!("groups-{count}")))
            });
            let (_place, _client, server) = match connected.join().unwrap() {
                Err(rustix::io::Errno::PERM) => {
                    return println!(
                        "SKIPPED the_groups_of_a_peer_are_those_of_who_connected: needs CAP_SETGID"
                    );
                }
                connected => connected.unwrap(),
            };
            let peer = server.peer().unwrap();
            assert_eq!((peer.gid, peer.groups), (own, groups));
        }
    }

    #[test]
    fn a_peer_that_never_reads_is_no_error_and_blocks_nobody() {
        let (_place, client, _server) = pair("deaf");
        let message = [7; 4096];
        let sent = (0..10_000)
            .take_while(|_| client.send(&message, &[]).unwrap())
            .count();
        assert!(sent > 0 && sent < 10_000, "{sent}");
    }

    #[test]
    fn a_handle_of_a_child_tells_its_end_and_can_bring_it_about() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessHandle::open(child.id()).unwrap();
        process.kill().unwrap();
        assert!(
            wait_one(process.as_fd(), Interest::Read, Some(Duration::from_secs(60)))
                .unwrap()
                .read
        );
        child.wait().unwrap();
        assert_eq!(ProcessHandle::open(0).unwrap_err().code(), "ESRCH");
    }
}
