//! The little that a device must know of a network interface: its index and its MTU.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::call::call;
use crate::{Error, Result};

/// The index of the interface `name` in the calling thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none of that name.
pub fn index(name: &str) -> Result<u32> {
    let args = || format!("ifname={name}");
    rustix::net::netdevice::name_to_index(socket()?, name)
        .map_err(|e| Error::rustix("ioctl(SIOCGIFINDEX)", args(), e))
}

/// Whether an interface is there, and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There and set up.
    Up,
    /// There and set down.
    Down,
    /// None with that index in the namespace.
    Gone,
}

/// Whether the interface with index `ifindex` is up, in the network namespace that `socket` was made in,
/// wherever the calling thread is.
///
/// # Errors
/// Whatever ioctl(SIOCGIFFLAGS) reports, `ENODEV` excepted.
pub fn link(socket: BorrowedFd<'_>, ifindex: u32) -> Result<Link> {
    match request(socket, ifindex, libc::SIOCGIFFLAGS, "ioctl(SIOCGIFFLAGS)") {
        // SAFETY: the kernel filled this integer of the union, for which any pattern is valid.
        Ok(answer) => match unsafe { answer.ifr_ifru.ifru_flags } as i32 & libc::IFF_UP {
            0 => Ok(Link::Down),
            _ => Ok(Link::Up),
        },
        Err(error) if error.errno == libc::ENODEV => Ok(Link::Gone),
        Err(error) => Err(error),
    }
}

/// The largest packet in bytes, without its link header, of the interface with that index in the calling
/// thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none with that index.
pub fn mtu(ifindex: u32) -> Result<u32> {
    mtu_in(socket()?.as_fd(), ifindex)
}

/// The same in the network namespace that `socket` was made in, wherever the calling thread is.
///
/// # Errors
/// As [`mtu`]; `EINVAL` for a socket of a family that answers no such question (AF_XDP).
pub fn mtu_in(socket: BorrowedFd<'_>, ifindex: u32) -> Result<u32> {
    let answer = request(socket, ifindex, libc::SIOCGIFMTU, "ioctl(SIOCGIFMTU)")?;
    // SAFETY: the kernel filled this integer of the union, for which any pattern is valid.
    Ok(unsafe { answer.ifr_ifru.ifru_mtu } as u32)
}

/// Asks by index what ioctl(2) only answers by name. A rename in between is a passing `ENODEV`.
fn request(
    socket: BorrowedFd<'_>,
    ifindex: u32,
    number: libc::c_ulong,
    call_name: &'static str,
) -> Result<libc::ifreq> {
    let args = || format!("ifindex={ifindex}");
    let name = rustix::net::netdevice::index_to_name(socket, ifindex)
        .map_err(|e| Error::rustix("ioctl(SIOCGIFNAME)", args(), e))?;
    // SAFETY: all-zero bytes are a valid ifreq: integers and arrays of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *slot = byte as libc::c_char;
    }
    let pointer = std::ptr::from_mut(&mut request) as usize;
    let fd = socket.as_raw_fd() as usize;
    // SAFETY: the requests used here read and write one ifreq at `pointer`, which is alive and ours.
    unsafe { call(libc::SYS_ioctl, [fd, number as usize, pointer, 0, 0, 0]) }
        .map_err(|errno| Error::new(call_name, args(), errno))?;
    Ok(request)
}

/// A socket in the calling thread's network namespace, good for questions about its interfaces.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn socket() -> Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::rustix("socket(AF_INET)", "SOCK_DGRAM", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_by_name() {
        let lo = index("lo").unwrap();
        assert!(mtu(lo).unwrap() > 0);
        let socket = super::socket().unwrap();
        assert_ne!(link(socket.as_fd(), lo).unwrap(), Link::Gone);
        assert_eq!(link(socket.as_fd(), 999_999).unwrap(), Link::Gone);
    }

    #[test]
    fn a_missing_interface_is_named() {
        let err = index("bf-none").unwrap_err();
        assert_eq!(
            (err.code().as_str(), err.args.as_str()),
            ("ENODEV", "ifname=bf-none")
        );
        assert_eq!(mtu(999_999).unwrap_err().code(), "ENODEV");
    }
}
