//! TAP devices: Ethernet interfaces whose far side is a file descriptor; here never persistent.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::call::call;
use crate::{Error, Result};

/// `TUNSETIFF`: `_IOW('T', 202, int)` of linux/if_tun.h, as x86-64 and arm64 encode it.
const TUNSETIFF: usize = 0x4004_54ca;

/// Longest name of an interface, without the NUL that ends it (IFNAMSIZ - 1).
const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// `struct ifreq` of linux/if.h as TUNSETIFF reads and writes it: a name, then flags in a union of 24 bytes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

/// `struct virtio_net_hdr` of linux/virtio_net.h, in the byte order of this machine (the legacy layout that
/// a TAP with IFF_VNET_HDR takes unless told otherwise): it travels before each frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` of linux/virtio_net.h.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4` and `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

impl VnetHeader {
    /// A frame whose checksums are all in place; the kernel verifies them.
    pub const COMPLETE: VnetHeader = VnetHeader {
        flags: 0,
        gso_type: 0,
        header_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// A frame whose transport checksum is still to be made: the sum goes from byte `start` of the frame to
    /// its end, and the result belongs at `start + offset`, where the pseudo-header's sum stands now.
    #[must_use]
    pub const fn needs_checksum(start: u16, offset: u16) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: start,
            csum_offset: offset,
            ..VnetHeader::COMPLETE
        }
    }

    /// The same frame, which stands for several: a TCP segment that the kernel cuts into packets of `size` bytes of
    /// payload when it has to send it on, or hands to its TCP as it is. `headers` bytes of headers stand before the
    /// payload, the Ethernet header included.
    #[must_use]
    pub const fn with_tcp_segments(self, is_v4: bool, headers: u16, size: u16) -> VnetHeader {
        VnetHeader {
            gso_type: if is_v4 { GSO_TCPV4 } else { GSO_TCPV6 },
            header_len: headers,
            gso_size: size,
            ..self
        }
    }

    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        for (slot, value) in bytes[2..].chunks_exact_mut(2).zip([
            self.header_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ]) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

/// Most bytes of an injected frame: what the lengths of a [`VnetHeader`] can point into.
pub const FRAME_MAX: usize = 65_535;

/// Refusals of [`TapQueue::inject`] that pass by themselves: EAGAIN, ENOBUFS, ENOMEM.
pub const NO_ROOM: [i32; 3] = [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];

/// One queue of a TAP: what is written to it arrives on the TAP interface.
///
/// The interface vanishes when the last descriptor of it closes, however its owner ended.
#[derive(Debug)]
pub struct TapQueue(File);

impl TapQueue {
    /// Lets `frame`, from its Ethernet header on, arrive on the interface, in one call and without a copy
    /// in user space. Returns when the kernel has taken it through the interface's tc ingress.
    ///
    /// Never waits. Allocates nothing, so the error is the bare number.
    ///
    /// # Errors
    /// Those of [`NO_ROOM`]: none now. `EMSGSIZE`: longer than [`FRAME_MAX`]. `EIO`: the interface is down. `EINVAL`: shorter than an
    /// Ethernet header, or a checksum outside of the frame. `EBADFD`: the interface was deleted.
    #[inline]
    pub fn inject(&self, header: VnetHeader, frame: &[u8]) -> std::result::Result<(), i32> {
        if frame.len() > FRAME_MAX {
            return Err(libc::EMSGSIZE);
        }
        let header = header.bytes();
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        loop {
            match rustix::io::writev(&self.0, &parts) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.raw_os_error()),
            }
        }
    }
}

impl TapQueue {
    /// Takes the next frame that the kernel sends on the interface, from its Ethernet header on, into `frame`, and what
    /// the kernel left to do of it into the header's place, which stays empty for a TAP that offers no offload. Gives the
    /// frame's bytes; `None` when there is none now. Longer frames than `frame` are cut, and so refused by whoever knows
    /// how long one may be. Never waits.
    #[inline]
    pub fn take(&self, frame: &mut [u8]) -> Option<usize> {
        let mut header = [0; 10];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(frame)];
        let read = rustix::io::readv(&self.0, &mut parts).ok()?;
        read.checked_sub(10)
    }
}

impl From<std::os::fd::OwnedFd> for TapQueue {
    /// A queue that another process opened and passed. A descriptor of something else makes [`TapQueue::inject`] fail,
    /// or writes the frame there.
    fn from(fd: std::os::fd::OwnedFd) -> TapQueue {
        TapQueue(File::from(fd))
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A TAP as it was made: down, without an address, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Tap {
    /// The interface's name.
    pub name: String,
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Its queues, as many as were asked for.
    pub queues: Vec<TapQueue>,
}

impl Tap {
    /// Makes a TAP with `queues` queues (1 to 256) in the calling thread's namespace. In `pattern`, `%d`
    /// stands for the first free number. Each queue is non-blocking, close-on-exec and takes a
    /// [`VnetHeader`] before each frame.
    ///
    /// # Errors
    /// `ENOENT`, `ENODEV`: no /dev/net/tun, or a kernel without it. `EPERM`: no CAP_NET_ADMIN in the
    /// namespace. `EBUSY`, `EEXIST`: the name is taken. `EINVAL`: a name that cannot be, or no queue.
    pub fn open(pattern: &str, queues: u32) -> Result<Tap> {
        let args = || format!("name={pattern} queues={queues} tap vnet_hdr");
        if pattern.is_empty() || pattern.len() > NAME_MAX || pattern.contains('\0') || queues == 0 {
            return Err(Error::new("ioctl(TUNSETIFF)", args(), libc::EINVAL));
        }
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut name = pattern.to_owned();
        let mut open = Vec::with_capacity(queues as usize);
        for queue in 0..queues {
            // The first must make the interface: without EXCL it would join one of that name that is there.
            let flags = flags | if queue == 0 { libc::IFF_TUN_EXCL } else { 0 };
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open("/dev/net/tun")
                .map_err(|e| Error::io("open", "/dev/net/tun", &e))?;
            name = attach(&file, &name, flags).map_err(|e| Error::new("ioctl(TUNSETIFF)", args(), e))?;
            open.push(TapQueue(file));
        }
        let ifindex = index_of(&name)?;
        Ok(Tap {
            name,
            ifindex,
            queues: open,
        })
    }
}

/// Attaches `file`, an open /dev/net/tun, to the TAP called `name`; gives the name it really has.
fn attach(file: &File, name: &str, flags: i32) -> std::result::Result<String, i32> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: flags as u16,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let args = [
        file.as_raw_fd() as usize,
        TUNSETIFF,
        (&raw mut request) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: TUNSETIFF reads and writes one struct ifreq, 40 bytes, which `request` is (asserted below),
    // alive and borrowed by nobody else until the call has returned.
    unsafe { call(libc::SYS_ioctl, args) }?;
    let end = request.name.iter().position(|b| *b == 0).unwrap_or(NAME_MAX);
    Ok(String::from_utf8_lossy(&request.name[..end]).into_owned())
}

const _: () = assert!(size_of::<Request>() == 40);

fn index_of(name: &str) -> Result<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::rustix("socket", "AF_UNIX datagram", e))?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .map_err(|e| Error::rustix("ioctl(SIOCGIFINDEX)", format!("name={name}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_laid_out_as_virtio_net_h_has_it() {
        let mut expected = [1u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        expected[6..8].copy_from_slice(&34u16.to_ne_bytes());
        expected[8..10].copy_from_slice(&6u16.to_ne_bytes());
        assert_eq!(VnetHeader::needs_checksum(34, 6).bytes(), expected);
        expected[1] = 4;
        expected[2..4].copy_from_slice(&74u16.to_ne_bytes());
        expected[4..6].copy_from_slice(&1440u16.to_ne_bytes());
        let cut = VnetHeader::needs_checksum(34, 6).with_tcp_segments(false, 74, 1440);
        assert_eq!(cut.bytes(), expected);
        assert_eq!(VnetHeader::COMPLETE.bytes(), [0; 10]);
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_before_any_call() {
        for (name, queues) in [("", 1), ("sixteen-bytes-xx", 1), ("a\0b", 1), ("fine", 0)] {
            let error = Tap::open(name, queues).unwrap_err();
            assert_eq!(
                (error.call, error.errno),
                ("ioctl(TUNSETIFF)", libc::EINVAL),
                "{name:?}"
            );
        }
    }

    #[test]
    fn what_the_kernel_refuses_names_the_interface() {
        if !std::path::Path::new("/dev/net/tun").exists() {
            println!("SKIPPED what_the_kernel_refuses_names_the_interface: no /dev/net/tun here");
            return;
        }
        let _kernel = crate::fake::set(|call| {
            (call.number == libc::SYS_ioctl && call.args[1] == TUNSETIFF).then_some(Err(libc::EPERM))
        });
        let error = Tap::open("bfp%d", 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ioctl(TUNSETIFF) name=bfp%d queues=2 tap vnet_hdr: Operation not permitted (EPERM)"
        );
    }
}
