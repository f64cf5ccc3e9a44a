//! setsockopt(2) and getsockopt(2) for plain-old-data options.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::call;
use crate::{Error, Result};

/// A C struct or integer without padding and without invalid bit patterns.
///
/// # Safety
/// Every byte of a value is initialised, and every bit pattern is a value: the kernel reads it as bytes
/// and may write any bytes over it.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer has neither padding nor invalid patterns.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}

/// Sets option `name` of `level` to `value`. `call_name` and `args` are for the error.
pub(crate) fn set<T: Plain>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &T,
    call_name: &'static str,
    args: impl FnOnce() -> String,
) -> Result<()> {
    let (pointer, len) = (std::ptr::from_ref(value) as usize, size_of::<T>());
    // SAFETY: `value` is alive and `len` bytes long during the call, and the kernel only reads it.
    unsafe {
        call(
            libc::SYS_setsockopt,
            [
                fd.as_raw_fd() as usize,
                level as usize,
                name as usize,
                pointer,
                len,
                0,
            ],
        )
    }
    .map(drop)
    .map_err(|errno| Error::new(call_name, args(), errno))
}

/// Reads option `name` of `level` into `value`; gives how many bytes the kernel wrote.
pub(crate) fn get<T: Plain>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut T,
    call_name: &'static str,
    args: impl FnOnce() -> String,
) -> Result<usize> {
    let mut len = size_of::<T>() as libc::socklen_t;
    let (pointer, len_pointer) = (
        std::ptr::from_mut(value) as usize,
        std::ptr::from_mut(&mut len) as usize,
    );
    let number = libc::SYS_getsockopt;
    // SAFETY: the kernel writes at most `len` bytes to `value`, of which any pattern is valid (Plain), and
    // the new length to `len`; both are alive and borrowed by nobody else during the call.
    unsafe {
        call(
            number,
            [
                fd.as_raw_fd() as usize,
                level as usize,
                name as usize,
                pointer,
                len_pointer,
                0,
            ],
        )
    }
    .map(|_| len as usize)
    .map_err(|errno| Error::new(call_name, args(), errno))
}

/// Takes and clears the error that waits on a socket (SO_ERROR); 0 when there is none.
pub(crate) fn pending_error(fd: BorrowedFd<'_>) -> Result<i32> {
    let mut errno = 0i32;
    get(
        fd,
        libc::SOL_SOCKET,
        libc::SO_ERROR,
        &mut errno,
        "getsockopt(SO_ERROR)",
        String::new,
    )?;
    Ok(errno)
}
