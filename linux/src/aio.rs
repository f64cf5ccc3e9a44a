//! A way to raise an eventfd that cannot block, whoever else has it: the completion of an asynchronous read.
//!
//! Whether write(2) on an eventfd blocks is a flag of the open file, and a process that was sent the descriptor can
//! clear that flag, and fill the counter, at any moment: between a look and the write too. A completion of aio(7)
//! raises the counter from within the kernel (eventfd_signal), where a full one stays as it is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// IOCB_FLAG_RESFD of linux/aio_abi.h: an eventfd is told of the completion.
const RESULT_TO_EVENT: u32 = 1;

/// struct iocb of linux/aio_abi.h, little-endian. Zeros are IOCB_CMD_PREAD of nothing at offset 0.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event: u32,
}

/// struct io_event of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Completion {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

/// A thread's context (aio_context_t), and an empty file to read nothing from.
struct Context {
    id: libc::c_ulong,
    nothing: OwnedFd,
}

impl Context {
    fn new() -> Option<Context> {
        let nothing = rustix::fs::memfd_create("bifurcate-nothing", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
        let mut id: libc::c_ulong = 0;
        // SAFETY: io_setup(2) for one request; it writes the new context's number to `id`.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut id) };
        (made == 0).then_some(Context { id, nothing })
    }

    fn raise(&self, event: BorrowedFd<'_>) -> bool {
        let mut request = Request {
            file: self.nothing.as_fd().as_raw_fd() as u32,
            flags: RESULT_TO_EVENT,
            event: event.as_raw_fd() as u32,
            ..Request::default()
        };
        let mut list = [&raw mut request];
        // SAFETY: io_submit(2) of one request, which is copied. It reads no bytes, into no buffer; at the end of a file
        // in memory that is done when the call returns.
        let submitted = unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1, list.as_mut_ptr()) };
        let mut done = Completion::default();
        // SAFETY: io_getevents(2): at most one, written to `done`, without waiting: room for the next.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.id,
                0,
                1,
                &raw mut done,
                std::ptr::null_mut::<libc::timespec>(),
            )
        };
        submitted == 1
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: a context of this thread's own; nothing is under way in it.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}

thread_local! {
    static CONTEXT: Option<Context> = Context::new();
}

/// Raises an eventfd's counter by one, unless it is full; never blocks. False where the kernel has no aio(7), allows
/// no more of it (`fs.aio-max-nr`), or `event` is no eventfd.
pub(crate) fn raise(event: BorrowedFd<'_>) -> bool {
    CONTEXT
        .try_with(|context| context.as_ref().is_some_and(|context| context.raise(event)))
        .unwrap_or(false)
}
