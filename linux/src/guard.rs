//! Memory of another process that may vanish: a fault there (SIGBUS) is mended with zero pages, and told.
//!
//! Whoever has a descriptor of a memory file can truncate it, or punch a hole into huge pages of which there are then
//! none left. Whoever touches such a page gets SIGBUS, in Rust or in JavaScript. The handler here puts private zero pages
//! in the place of the whole range, so that the instruction goes on; the owner of the range learns of it and ends its
//! port. A fault in memory that is not guarded goes to the handler that was there before, or ends the process as ever.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::event::EventFd;
use crate::memory::Mapping;
use crate::{Error, Result};

/// Ranges that can be guarded at a time.
const RANGES: usize = 1024;

struct Range {
    /// 0 while the slot is not in use; written last, and first when the slot is given back.
    len: AtomicUsize,
    start: AtomicUsize,
    /// The descriptor to raise, -1 for none.
    event: AtomicI32,
    lost: AtomicBool,
}

static TABLE: [Range; RANGES] = [const {
    Range {
        len: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        event: AtomicI32::new(-1),
        lost: AtomicBool::new(false),
    }
}; RANGES];

/// Slots in use.
static TAKEN: Mutex<[bool; RANGES]> = Mutex::new([false; RANGES]);

/// What handled the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A guarded range. Dropping it ends the guard; it must not outlive its mapping, nor the mapping it.
#[derive(Debug)]
pub struct Guard {
    slot: usize,
    _event: Option<OwnedFd>,
}

impl Guard {
    /// Guards a mapping. `event` is raised when its memory vanished.
    ///
    /// # Errors
    /// What sigaction(2) and dup report; `ENOSPC` with more than 1024 ranges.
    pub fn new(mapping: &Mapping, event: Option<&EventFd>) -> Result<Guard> {
        install()?;
        let event = event.map(EventFd::duplicate).transpose()?.map(OwnedFd::from);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = taken
            .iter()
            .position(|taken| !taken)
            .ok_or_else(|| Error::new("guard", format!("more than {RANGES} ranges"), libc::ENOSPC))?;
        taken[slot] = true;
        let range = &TABLE[slot];
        range.lost.store(false, Ordering::Relaxed);
        range
            .event
            .store(event.as_ref().map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
        range
            .start
            .store(mapping.base().as_ptr() as usize, Ordering::Relaxed);
        range.len.store(mapping.len(), Ordering::Release);
        Ok(Guard { slot, _event: event })
    }

    /// Whether the memory has vanished, and zero pages are in its place.
    #[inline]
    #[must_use]
    pub fn is_lost(&self) -> bool {
        TABLE[self.slot].lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.slot].len.store(0, Ordering::Release);
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.slot] = false;
    }
}

fn install() -> Result<()> {
    static ONCE: Mutex<bool> = Mutex::new(false);
    let mut done = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done {
        return Ok(());
    }
    // SAFETY: both structs are plain data that the call reads and writes whole; the handler does only what a signal
    // handler may (see there), and stays in memory as long as the process.
    let status = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut ours.sa_mask);
        // Known before the handler is there.
        let status = libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before);
        let _ = BEFORE.set(before);
        if status == 0 {
            libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut())
        } else {
            status
        }
    };
    if status != 0 {
        return Err(Error::io("sigaction", "SIGBUS", &std::io::Error::last_os_error()));
    }
    *done = true;
    Ok(())
}

/// Mends the fault when it lies in a guarded range. Everything in it is safe in a signal handler: atomics, mmap(2) and
/// write(2), which keep to the kernel; no allocation, no lock.
extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a siginfo of a SIGBUS, which has an address; errno belongs to this thread.
    let (at, errno) = unsafe { ((*info).si_addr() as usize, *libc::__errno_location()) };
    // SAFETY: as above. A number of 0 and below is of a signal that a process sent, which has no address (sigaction(2),
    // "The siginfo_t argument to a SA_SIGINFO handler").
    let sent = unsafe { (*info).si_code <= 0 };
    for range in TABLE.iter().take(if sent { 0 } else { RANGES }) {
        let len = range.len.load(Ordering::Acquire);
        let start = range.start.load(Ordering::Relaxed);
        // Read again: the slot may just have changed hands.
        if len == 0 || at.wrapping_sub(start) >= len || range.len.load(Ordering::Acquire) != len {
            continue;
        }
        // SAFETY: exactly the range of a living Mapping, whose owner guards it: MAP_FIXED displaces nothing else, and
        // raw pointers into it stay valid. Two threads that fault at once do the same twice.
        let mended = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mended == libc::MAP_FAILED {
            break;
        }
        range.lost.store(true, Ordering::Relaxed);
        let event = range.event.load(Ordering::Relaxed);
        // SAFETY: eight bytes of this function's own; the descriptor is open as long as the Guard. errno goes back to
        // what the interrupted code had.
        unsafe {
            if event >= 0 {
                let one = 1u64.to_ne_bytes();
                libc::write(event, one.as_ptr().cast(), one.len());
            }
            *libc::__errno_location() = errno;
        }
        return;
    }
    pass_on(signal, info, context, sent);
}

/// Does what would have been done without this handler. Where that leaves the default, a signal that was `sent` is sent
/// again, to be taken when this handler returns: it comes once alone, where an instruction faults again. Nobody is left
/// without guards and alive.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, sent: bool) {
    let handler = BEFORE.get().map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    let flags = BEFORE.get().map_or(0, |before| before.sa_flags);
    // SAFETY: all three calls may be made in a signal handler. The kernel held this address for a handler of that type,
    // which is called as the kernel would; `now` is plain data that the call fills.
    unsafe {
        if handler == libc::SIG_IGN && sent {
            return;
        } else if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            libc::signal(signal, libc::SIG_DFL);
        } else if flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
            handler(signal);
        }
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now);
        if sent && now.sa_sigaction == libc::SIG_DFL {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ORDINARY_PAGE, PageKind};
    use std::os::fd::AsFd;

    fn file(len: usize) -> OwnedFd {
        let fd = rustix::fs::memfd_create("bf-guard", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len as u64).unwrap();
        fd
    }

    fn read(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.len());
        // SAFETY: within the mapping, which is guarded.
        unsafe { mapping.base().as_ptr().add(at).read_volatile() }
    }

    #[test]
    fn memory_that_is_cut_off_reads_zeros_and_its_owner_is_told() {
        let fd = file(4 * ORDINARY_PAGE);
        let mapping = Mapping::lazy(fd.as_fd(), 0, 4 * ORDINARY_PAGE, "test").unwrap();
        let other = Mapping::lazy(fd.as_fd(), 0, ORDINARY_PAGE, "test").unwrap();
        let event = EventFd::new().unwrap();
        let guard = Guard::new(&mapping, Some(&event)).unwrap();
        let elsewhere = Guard::new(&other, None).unwrap();
        // SAFETY: within the mapping.
        unsafe { mapping.base().as_ptr().write_volatile(7) };
        rustix::fs::ftruncate(&fd, ORDINARY_PAGE as u64).unwrap();
        assert!(!guard.is_lost() && read(&mapping, 0) == 7);
        assert_eq!(read(&mapping, 3 * ORDINARY_PAGE), 0);
        assert!(guard.is_lost() && event.lower());
        assert_eq!(
            read(&mapping, 0),
            0,
            "the whole range is gone, not one page of it"
        );
        assert!(!elsewhere.is_lost() && read(&other, 0) == 7, "others keep theirs");
    }

    /// How this test ends in a process of its own, in which it does `what`.
    fn ends(test: &str, what: fn()) -> Option<i32> {
        if std::env::var_os("BF_GUARD_FAULT").is_some() {
            what();
            std::process::exit(3);
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("guard::tests::{test}")])
            .env("BF_GUARD_FAULT", "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        std::os::unix::process::ExitStatusExt::signal(&status)
    }

    #[test]
    fn a_fault_in_memory_that_is_not_guarded_ends_the_process() {
        let ended = ends("a_fault_in_memory_that_is_not_guarded_ends_the_process", || {
            let fd = file(PageKind::Ordinary.size());
            let guarded = Mapping::lazy(fd.as_fd(), 0, ORDINARY_PAGE, "test").unwrap();
            let _guard = Guard::new(&guarded, None).unwrap();
            let open = Mapping::lazy(fd.as_fd(), 0, ORDINARY_PAGE, "test").unwrap();
            rustix::fs::ftruncate(&fd, 0).unwrap();
            assert_eq!(read(&open, 0), 0);
        });
        assert_eq!(ended, Some(libc::SIGBUS));
    }

    #[test]
    fn the_signal_sent_by_a_process_ends_it_as_ever() {
        let ended = ends("the_signal_sent_by_a_process_ends_it_as_ever", || {
            let fd = file(ORDINARY_PAGE);
            let guarded = Mapping::lazy(fd.as_fd(), 0, ORDINARY_PAGE, "test").unwrap();
            let _guard = Guard::new(&guarded, None).unwrap();
            // SAFETY: a signal to this thread, which is to end the process before the call returns.
            unsafe { libc::raise(libc::SIGBUS) };
        });
        assert_eq!(ended, Some(libc::SIGBUS));
    }
}
