//! Names for maps and links in a BPF file system: what is pinned outlives its process.

use super::attr::{Command, bpf, bpf_fd, raw};
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The block of BPF_OBJ_PIN and BPF_OBJ_GET.
#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
    path_fd: i32,
    pad: u32,
}

fn name(call: &'static str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(call, format!("path={}", path.display()), libc::EINVAL))
}

/// Gives the object behind `fd` the name `path`, a file that is not there in a folder of a BPF file system.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    const CALL: &str = "bpf(BPF_OBJ_PIN)";
    let text = name(CALL, path)?;
    let mut attr = Object {
        pathname: text.as_ptr().expose_provenance() as u64,
        bpf_fd: raw(fd),
        ..Default::default()
    };
    // SAFETY: `text` is alive and ends with a NUL; the command reads it and writes nothing.
    unsafe { bpf(Command::ObjPin, &mut attr) }
        .map(drop)
        .map_err(|errno| Error::new(CALL, format!("path={}", path.display()), errno))
}

/// Opens the object that was pinned as `path`.
pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    const CALL: &str = "bpf(BPF_OBJ_GET)";
    let text = name(CALL, path)?;
    let mut attr = Object {
        pathname: text.as_ptr().expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: as in `pin`; the command gives a descriptor.
    unsafe { bpf_fd(Command::ObjGet, &mut attr) }
        .map_err(|errno| Error::new(CALL, format!("path={}", path.display()), errno))
}

/// The name itself (O_PATH), to be passed: by `/proc/self/fd/N` another process opens what stands behind it, as far as
/// the file's mode lets it, although it may not enter the folder.
///
/// # Errors
/// `ENOENT`, `EACCES`: the path.
pub fn open_name(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::rustix("open(O_PATH)", format!("path={}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_block_is_laid_out_as_the_header_has_it() {
        assert_eq!((offset_of!(Object, bpf_fd), offset_of!(Object, path_fd)), (8, 16));
    }

    #[test]
    fn a_path_with_a_nul_is_refused_before_any_call() {
        assert_eq!(open(Path::new("a\0b")).unwrap_err().code(), "EINVAL");
    }
}
