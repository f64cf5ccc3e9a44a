//! A process that holds memory which a device may still write, until the device is told to stop.
//!
//! Without an IOMMU a device writes to physical addresses. When its process is killed, the kernel frees the memory
//! first and closes the files after it: in between the device writes into pages that are somebody else's already. So a
//! second process, forked before the device may write, has the same memory mapped. It sleeps on a pipe; when the
//! process ends without having said that the device is quiet, it clears the function's Bus Master bit itself and only
//! then lets the memory go.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::call::call;
use crate::pci::ConfigSpace;
use crate::{Error, Result};

/// The Command register and its Bus Master bit (PCI 3.0, 6.2.2).
const COMMAND: i64 = 4;
const BUS_MASTER: u16 = 1 << 2;

/// The process that holds the memory. Dropped without [`Guardian::dismiss`], it does its work as if we had died.
#[derive(Debug)]
pub struct Guardian {
    pid: i32,
    /// The writing end; closed by the kernel when this process ends, however it ends. None only while being dropped.
    pipe: Option<OwnedFd>,
}

impl Guardian {
    /// Forks. Everything that this process has mapped as shared memory now stays in memory until the guardian ends;
    /// `config` is the function's configuration space by sysfs, whose lock (flock(2)) the guardian shares.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`, `EMFILE`.
    pub fn start(config: &ConfigSpace) -> Result<Guardian> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| Error::rustix("pipe2", "guardian", e))?;
        let (pipe, config) = (reader.as_raw_fd(), config.as_fd().as_raw_fd());
        // SAFETY: clone(2) without flags is fork(2): the child has its own copy of this thread's stack and of all
        // private memory. No signal is sent when it ends (flags 0), since whoever waits for children here waits for
        // its own.
        let pid = unsafe { call(libc::SYS_clone, [0; 6]) }
            .map_err(|errno| Error::new("clone", "guardian", errno))?;
        if pid == 0 {
            // SAFETY: the child, with one thread; it makes system calls alone and never returns.
            unsafe { watch(pipe, config) }
        }
        Ok(Guardian {
            pid: pid as i32,
            pipe: Some(writer),
        })
    }

    /// Tells it that the device is quiet: it ends at once and leaves the function alone.
    pub fn dismiss(self) {
        if let Some(pipe) = &self.pipe {
            let _ = rustix::io::write(pipe, b"q");
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Nobody else may have the pipe, so this ends its read.
        self.pipe = None;
        // SAFETY: waits for our own child; no pointer is used. __WALL: a child that sends no signal.
        let _ = unsafe {
            call(
                libc::SYS_wait4,
                [self.pid as usize, 0, libc::__WALL as usize, 0, 0, 0],
            )
        };
    }
}

/// The child's life.
///
/// # Safety
/// Called in a freshly forked child alone. Only system calls that are safe after a fork of a process with threads:
/// no memory is allocated, no lock taken.
unsafe fn watch(pipe: i32, config: i32) -> ! {
    // SAFETY: plain system calls on descriptors and on locals of this frame, which outlive each call.
    unsafe {
        // The terminal's signals, and its group's, are not for it; what can be blocked is.
        libc::syscall(libc::SYS_setsid);
        let all = u64::MAX;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const all,
            0usize,
            8usize,
        );
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_NAME,
            c"bf-dma-guard".as_ptr(),
            0,
            0,
            0,
        );
        // Every other file goes: above all the UIO file, whose closing is what the kernel answers with quiet, and
        // the writing ends of pipes.
        let (low, high) = if pipe < config {
            (pipe, config)
        } else {
            (config, pipe)
        };
        for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, i32::MAX)] {
            if first <= last {
                libc::syscall(libc::SYS_close_range, first as u32, last as u32, 0u32);
            }
        }
        let mut said = 0u8;
        let got = loop {
            let got = libc::syscall(libc::SYS_read, pipe, &raw mut said, 1usize);
            if got >= 0 || *libc::__errno_location() != libc::EINTR {
                break got;
            }
        };
        if got != 1 {
            let mut command = 0u16;
            libc::syscall(libc::SYS_pread64, config, &raw mut command, 2usize, COMMAND);
            command &= !BUS_MASTER;
            libc::syscall(libc::SYS_pwrite64, config, &raw const command, 2usize, COMMAND);
            // Read back: what the device had under way has arrived when this answers.
            libc::syscall(libc::SYS_pread64, config, &raw mut command, 2usize, COMMAND);
        }
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> (ConfigSpace, ConfigSpace) {
        let file = rustix::fs::memfd_create("bf-config", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, &[0, 0, 0, 0, 0x47, 4, 0, 0], 0).unwrap();
        let second = rustix::io::fcntl_dupfd_cloexec(&file, 0).unwrap();
        let space = |fd| ConfigSpace::new(fd, 0, "test".to_owned());
        (space(file), space(second))
    }

    #[test]
    fn a_guardian_left_alone_stops_the_device() {
        let (config, seen) = space();
        let guardian = Guardian::start(&config).unwrap();
        assert!(seen.is_bus_master().unwrap());
        drop(guardian);
        assert!(!seen.is_bus_master().unwrap());
        assert_eq!(seen.read16(4).unwrap(), 0x443, "no other bit changed");
    }

    #[test]
    fn a_guardian_that_is_dismissed_leaves_the_device_alone() {
        let (config, seen) = space();
        Guardian::start(&config).unwrap().dismiss();
        assert!(seen.is_bus_master().unwrap());
    }
}
