//! The one place where a raw system call leaves the process, so that a test can answer in the kernel's place.

use std::ffi::c_long;

/// A raw system call as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The call's number, e.g. `libc::SYS_bpf`.
    pub number: c_long,
    /// Its arguments in the order of the man page, unused ones zero.
    pub args: [usize; 6],
}

/// Makes `call`, or asks the calling thread's fake (see [`crate::fake`]) when one is set.
///
/// Gives the call's result, or the error number (positive).
///
/// # Safety
/// The arguments are what the kernel's manual page of that call asks for: every pointer among them is
/// valid for what that call reads and writes, for as long as it does so.
#[inline]
pub unsafe fn call(number: c_long, args: [usize; 6]) -> Result<usize, i32> {
    #[cfg(any(test, feature = "fake"))]
    if let Some(answer) = crate::fake::answer(&Call { number, args }) {
        return answer;
    }
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the arguments; syscall(2) itself touches nothing else.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        Err(std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO))
    } else {
        Ok(result as usize)
    }
}
