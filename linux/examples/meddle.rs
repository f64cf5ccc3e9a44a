//! For tests: puts its hands into the rings of another process's AF_XDP socket, as a program with a mistake would.
//!
//! `meddle PID fill` maps the fill ring, as a second process that fills it does; `meddle PID tx` adds a frame to the
//! transmit ring and calls nobody. Says "done" when it has, and holds what it mapped until its stdin ends.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use bifurcate_linux::xsk::{RingKind, XskSocket};

/// The first AF_XDP socket of another process, as a descriptor of our own: pidfd_getfd(2).
fn socket_of(pid: i32) -> Result<XskSocket, Box<dyn Error>> {
    // SAFETY: pidfd_open(2) takes two integers, and gives a descriptor that nobody else owns.
    let process = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let number: i32 = entry.file_name().to_string_lossy().parse()?;
        if !is_socket {
            continue;
        }
        // SAFETY: pidfd_getfd(2) takes three integers, and gives a descriptor that nobody else owns.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
        if fd < 0 {
            continue;
        }
        // SAFETY: as above.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        if let Ok(socket) = XskSocket::received(fd) {
            return Ok(socket);
        }
    }
    Err(format!("process {pid} has no AF_XDP socket").into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, pid, ring] = words.as_slice() else {
        return Err("usage: meddle PID fill|tx".into());
    };
    let socket = socket_of(pid.parse()?)?;
    let kind = if ring == "tx" {
        RingKind::Tx
    } else {
        RingKind::Fill
    };
    // Enough to reach the indices and the first entry, whatever the ring's size.
    let (mapping, offsets) = socket.map_ring(kind, 1)?;
    if kind == RingKind::Tx {
        // SAFETY: the kernel gave the offset of an aligned u32 within what was mapped, which lives until the end.
        let producer =
            unsafe { AtomicU32::from_ptr(mapping.base().as_ptr().add(offsets.producer as usize).cast()) };
        // Whatever stands in the entry: nobody is called, so nobody reads it.
        producer.fetch_add(1, Ordering::Release);
    }
    println!("done");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(mapping);
    Ok(())
}
