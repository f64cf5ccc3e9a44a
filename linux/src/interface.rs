//! The little that a device must know of a network interface: its index and its MTU.

use std::os::fd::AsRawFd;

use crate::call::call;
use crate::{Error, Result};

/// The index of the interface `name` in the calling thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none of that name.
pub fn index(name: &str) -> Result<u32> {
    let args = || format!("ifname={name}");
    rustix::net::netdevice::name_to_index(any_socket()?, name)
        .map_err(|e| Error::rustix("ioctl(SIOCGIFINDEX)", args(), e))
}

/// The largest packet in bytes, without its link header, of the interface with that index in the calling
/// thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none with that index.
pub fn mtu(ifindex: u32) -> Result<u32> {
    let socket = any_socket()?;
    let name = rustix::net::netdevice::index_to_name(&socket, ifindex)
        .map_err(|e| Error::rustix("ioctl(SIOCGIFNAME)", format!("ifindex={ifindex}"), e))?;
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
    // SAFETY: the request reads and writes one ifreq at `pointer`, which is alive and ours.
    unsafe { call(libc::SYS_ioctl, [fd, libc::SIOCGIFMTU as usize, pointer, 0, 0, 0]) }
        .map_err(|errno| Error::new("ioctl(SIOCGIFMTU)", format!("ifname={name}"), errno))?;
    // SAFETY: the kernel filled this integer of the union, for which any pattern is valid.
    Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
}

fn any_socket() -> Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::rustix("socket(AF_INET)", "SOCK_DGRAM", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_by_name() {
        assert!(mtu(index("lo").unwrap()).unwrap() > 0);
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
