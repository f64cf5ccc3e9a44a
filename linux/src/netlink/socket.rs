//! A netlink socket: requests with the kernel's own explanation of a refusal, and dumps.

use super::message::{Message, Received, attributes, flag, messages, u32_at};
use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A netlink protocol (include/uapi/linux/netlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Protocol {
    /// Links, addresses, routes, traffic control.
    Route = 0,
    /// Sockets.
    SockDiag = 4,
    /// Families that are found by name.
    Generic = 16,
}

/// A netlink socket of the namespace that the calling thread was in when it was made.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;
/// NLMSGERR_ATTR_MSG: the reason in words.
const ATTR_MSG: u16 = 1;
/// A dump's datagrams are at most 32 KiB (netlink_dump, net/netlink/af_netlink.c).
const BUFFER: usize = 64 * 1024;
/// How often a dump that was disturbed by a change is tried again.
const ATTEMPTS: usize = 10;
/// The kernel answers within the system call; a longer silence means that no answer will come.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub fn open(protocol: Protocol) -> Result<Self> {
        let args = || format!("{protocol:?}");
        let number = rustix::net::Protocol::from_raw(
            std::num::NonZeroU32::new(protocol as u32).unwrap_or(std::num::NonZeroU32::MIN),
        );
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            (protocol != Protocol::Route).then_some(number),
        )
        .map_err(|e| Error::rustix("socket(AF_NETLINK)", args(), e))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))
            .map_err(|e| Error::rustix("bind(AF_NETLINK)", args(), e))?;
        let socket = Self { fd, sequence: 0 };
        // Both only make answers better, and an old kernel may lack them.
        let _ = socket.set_option(NETLINK_EXT_ACK, 1);
        let _ = socket.set_option(NETLINK_GET_STRICT_CHK, 1);
        Ok(socket)
    }

    /// Subscribes to multicast group number `group`.
    pub fn subscribe(&self, group: u32) -> Result<()> {
        self.set_option(NETLINK_ADD_MEMBERSHIP, group)
            .map(|_| ())
            .map_err(|errno| {
                Error::new(
                    "setsockopt(NETLINK_ADD_MEMBERSHIP)",
                    format!("group={group}"),
                    errno,
                )
            })
    }

    fn set_option(&self, option: i32, value: u32) -> std::result::Result<usize, i32> {
        let args = [
            self.fd.as_raw_fd() as usize,
            libc::SOL_NETLINK as usize,
            option as usize,
            std::ptr::from_ref(&value).expose_provenance(),
            size_of_val(&value),
            0,
        ];
        // SAFETY: the option's value is a live number of the length given, and is only read.
        unsafe { crate::call::call(libc::SYS_setsockopt, args) }
    }

    /// Sends a request that changes something and waits until it is done. `args` describes it in errors.
    pub fn change(&mut self, call: &'static str, args: &str, message: Message) -> Result<()> {
        self.exchange(call, args, message, flag::ACK, &mut |_| ())
    }

    /// Sends a request for one object and gives `read` every message of the answer.
    pub fn get(
        &mut self,
        call: &'static str,
        args: &str,
        message: Message,
        read: &mut dyn FnMut(&Received<'_>),
    ) -> Result<()> {
        self.exchange(call, args, message, flag::ACK, read)
    }

    /// Asks for all objects of a kind, and reads each with `read`. Asked again from the start when a
    /// change disturbed the answer.
    pub fn dump<T>(
        &mut self,
        call: &'static str,
        message: &Message,
        read: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut attempts = ATTEMPTS;
        loop {
            let (mut all, mut disturbed) = (Vec::new(), false);
            self.exchange(call, "dump", message.clone(), flag::DUMP, &mut |received| {
                disturbed |= received.flags & flag::DUMP_INTR != 0;
                all.extend(read(received));
            })?;
            attempts -= 1;
            if !disturbed || attempts == 0 {
                return Ok(all);
            }
        }
    }

    fn exchange(
        &mut self,
        call: &'static str,
        args: &str,
        message: Message,
        flags: u16,
        read: &mut dyn FnMut(&Received<'_>),
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let sequence = self.sequence;
        let bytes = message.finish(sequence, flags);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())
            .map_err(|e| Error::rustix("send(AF_NETLINK)", format!("{call} {args}"), e))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self
                .receive(&mut buffer)
                .map_err(|errno| Error::new(call, args, errno))?;
            for received in messages(&buffer[..length]).filter(|received| received.sequence == sequence) {
                match received.kind {
                    NLMSG_ERROR | NLMSG_DONE => return answer(call, args, &received),
                    _ => read(&received),
                }
            }
        }
    }

    /// Waits for a datagram.
    fn receive(&self, buffer: &mut [u8]) -> std::result::Result<usize, i32> {
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, Some(&PATIENCE)) {
                Ok(0) => return Err(libc::ETIMEDOUT),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.raw_os_error()),
            }
            match self.receive_now(buffer)? {
                Some(length) => return Ok(length),
                None => continue,
            }
        }
    }

    /// A datagram that is there already, or none. ENOBUFS when events were lost, EMSGSIZE when one was
    /// longer than the buffer.
    pub fn receive_now(&self, buffer: &mut [u8]) -> std::result::Result<Option<usize>, i32> {
        match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, length)) if length > buffer.len() => Err(libc::EMSGSIZE),
            Ok((_, length)) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.raw_os_error()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an NLMSG_ERROR or NLMSG_DONE says: both begin with an error number, negative or zero.
pub(super) fn answer(call: &'static str, args: &str, received: &Received<'_>) -> Result<()> {
    let errno = u32_at(received.body, 0).unwrap_or(0) as i32;
    if errno == 0 {
        return Ok(());
    }
    // After the number an NLMSG_ERROR carries the request's header, and its payload unless CAPPED.
    let mut at = 4;
    if received.kind == NLMSG_ERROR {
        let request = u32_at(received.body, 4).unwrap_or(16) as usize;
        at += if received.flags & flag::CAPPED != 0 {
            16
        } else {
            request.next_multiple_of(4)
        };
    }
    let reason = (received.flags & flag::ACK_TLVS != 0)
        .then(|| {
            attributes(received.body.get(at..)?)
                .find(|a| a.kind == ATTR_MSG)
                .map(|a| a.text())
        })
        .flatten();
    let args = match reason {
        Some(reason) => format!("{args} (the kernel says: {reason})"),
        None => args.to_owned(),
    };
    Err(Error::new(call, args, errno.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut body = (-libc::EBUSY).to_ne_bytes().to_vec();
        body.extend(Message::new(16, 0, &[]).finish(1, 0));
        body.extend_from_slice(&[8, 0, 1, 0, b'n', b'o', b'!', 0]);
        let received = Received {
            kind: NLMSG_ERROR,
            flags: flag::ACK_TLVS | flag::CAPPED,
            sequence: 1,
            body: &body,
        };
        let error = answer("netlink(RTM_NEWLINK)", "dev=x", &received).unwrap_err();
        assert_eq!(
            (error.errno, error.args.as_str()),
            (libc::EBUSY, "dev=x (the kernel says: no!)")
        );
    }

    #[test]
    fn zero_is_success() {
        let received = Received {
            kind: NLMSG_DONE,
            flags: 0,
            sequence: 1,
            body: &[0; 4],
        };
        assert_eq!(answer("x", "", &received), Ok(()));
    }
}
