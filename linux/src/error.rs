//! The error of a system call: which call, with which arguments, and why the kernel refused it.

use std::ffi::CStr;
use std::fmt;

/// A refused system call. Displays as `bind(AF_XDP) dev=eth0 queue=3: Device or resource busy (EBUSY)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The call, e.g. `bind(AF_XDP)`.
    pub call: &'static str,
    /// Its arguments in words, e.g. `dev=eth0 queue=3`.
    pub args: String,
    /// The error number the kernel gave (positive).
    pub errno: i32,
}

/// What every call here gives back.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `call` with `args` and a known error number.
    #[must_use]
    pub fn new(call: &'static str, args: impl Into<String>, errno: i32) -> Self {
        Self {
            call,
            args: args.into(),
            errno,
        }
    }

    /// The error that the calling thread's last libc call left in `errno`.
    #[must_use]
    pub fn last(call: &'static str, args: impl Into<String>) -> Self {
        Self::io(call, args, &std::io::Error::last_os_error())
    }

    /// An error of the standard library; one that is not the system's own counts as EIO.
    #[must_use]
    pub fn io(call: &'static str, args: impl Into<String>, error: &std::io::Error) -> Self {
        Self::new(call, args, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// An error of a rustix call.
    #[must_use]
    pub fn rustix(call: &'static str, args: impl Into<String>, error: rustix::io::Errno) -> Self {
        Self::new(call, args, error.raw_os_error())
    }

    /// The refusal of interrupts that the mechanism `via` does not give a card. Its call is what it is known by
    /// (control/src/card/errors.ts).
    #[must_use]
    pub fn no_interrupt(address: impl fmt::Display, via: impl fmt::Display) -> Self {
        let why = format!("address={address} via={via}: this mechanism gives this card no interrupt");
        Self::new("interrupts", why, libc::EOPNOTSUPP)
    }

    /// The error number's name, e.g. `EBUSY`; `E<number>` for one that has no name here.
    #[must_use]
    pub fn code(&self) -> String {
        errno_name(self.errno).map_or_else(|| format!("E{}", self.errno), str::to_owned)
    }

    /// True for the answers of a kernel or driver that has no such operation.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno, libc::EOPNOTSUPP | libc::ENOSYS | ENOTSUPP)
    }
}

/// The kernel's internal "not supported" (include/linux/errno.h), which some drivers leak to user space.
pub const ENOTSUPP: i32 = 524;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)?;
        if !self.args.is_empty() {
            write!(f, " {}", self.args)?;
        }
        write!(f, ": {} ({})", errno_text(self.errno), self.code())
    }
}

impl std::error::Error for Error {}

fn errno_text(errno: i32) -> String {
    if errno == ENOTSUPP {
        return "Operation is not supported".to_owned();
    }
    let mut text = [0u8; 128];
    // SAFETY: `text` is a live buffer of the length given; strerror_r ends what it writes with a NUL
    // within that length, and nothing else refers to the buffer meanwhile.
    let result = unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len()) };
    match (result, CStr::from_bytes_until_nul(&text)) {
        (0, Ok(text)) => text.to_string_lossy().into_owned(),
        _ => format!("error {errno}"),
    }
}

/// The names of include/uapi/asm-generic/errno-base.h and errno.h that network and BPF calls give.
macro_rules! names {
    ($($name:ident)*) => {
        fn errno_name(errno: i32) -> Option<&'static str> {
            $(if errno == libc::$name { return Some(stringify!($name)); })*
            (errno == ENOTSUPP).then_some("ENOTSUPP")
        }
    };
}

names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY
    EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK
    EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG ENODATA ETIME EPROTO EBADMSG
    EOVERFLOW ENOTUNIQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH
    EBADFD ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN
    EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_that_is_not_had_is_known_by_its_call() {
        assert_eq!(
            Error::no_interrupt("0000:01:10.0", "uio_pci_generic").to_string(),
            "interrupts address=0000:01:10.0 via=uio_pci_generic: this mechanism gives this card no interrupt: \
             Operation not supported (EOPNOTSUPP)"
        );
    }

    #[test]
    fn says_what_was_called_with_what_and_why_it_failed() {
        let error = Error::new("bind(AF_XDP)", "dev=eth0 queue=3", libc::EBUSY);
        assert_eq!(
            error.to_string(),
            "bind(AF_XDP) dev=eth0 queue=3: Device or resource busy (EBUSY)"
        );
    }

    #[test]
    fn an_unknown_number_still_has_a_code() {
        assert_eq!(Error::new("x", "", 4000).code(), "E4000");
        assert_eq!(
            Error::new("x", "", ENOTSUPP).to_string(),
            "x: Operation is not supported (ENOTSUPP)"
        );
    }
}
