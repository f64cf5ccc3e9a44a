//! Network namespaces: opened by name, by path or as the thread's own, and entered for the length of a closure.

use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The calling thread's namespace; `/proc/self` would be the first thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where ip-netns(8) keeps named namespaces.
const NAMED: &str = "/run/netns";

/// NS_GET_NSTYPE of include/uapi/linux/nsfs.h: `_IO(0xb7, 3)`.
const NS_GET_NSTYPE: usize = 0xb703;

/// An open network namespace. It lives at least as long as this does.
#[derive(Debug)]
pub struct Netns {
    file: OwnedFd,
    inode: u64,
    device: u64,
    path: PathBuf,
}

impl Netns {
    /// Opens a namespace: `None` is the calling thread's own, a name without a slash one of ip-netns(8)
    /// (`/run/netns/NAME`), anything else the path of a namespace file.
    pub fn open(name: Option<&str>) -> Result<Self> {
        match name {
            None => Self::open_path(Path::new(OWN)),
            Some(path) if path.contains('/') => Self::open_path(Path::new(path)),
            Some("" | "." | "..") => Err(Error::new(
                "open(netns)",
                "name is empty or a folder",
                libc::EINVAL,
            )),
            Some(name) => Self::open_path(&Path::new(NAMED).join(name)),
        }
    }

    /// Opens the namespace file at `path`; EINVAL when it is a file of another kind.
    pub fn open_path(path: &Path) -> Result<Self> {
        let args = || format!("path={}", path.display());
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::rustix("open(netns)", args(), e))?;
        let stat = rustix::fs::fstat(&file).map_err(|e| Error::rustix("fstat(netns)", args(), e))?;
        let kind =
            namespace_type(file.as_fd()).map_err(|_| Error::new("open(netns)", args(), libc::EINVAL))?;
        if kind != libc::CLONE_NEWNET {
            return Err(Error::new("open(netns)", args(), libc::EINVAL));
        }
        Ok(Self {
            file,
            inode: stat.st_ino,
            device: stat.st_dev,
            path: path.to_owned(),
        })
    }

    /// The namespace file's inode number, by which the kernel tells namespaces apart.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// True when the calling thread is in this namespace already.
    pub fn is_current(&self) -> Result<bool> {
        let stat = rustix::fs::stat(OWN).map_err(|e| Error::rustix("stat(netns)", OWN, e))?;
        Ok((stat.st_ino, stat.st_dev) == (self.inode, self.device))
    }

    /// Runs `work` with the calling thread in this namespace, and brings the thread back however `work`
    /// ends, by a panic too. Sockets made meanwhile stay in this namespace.
    ///
    /// Entering asks for CAP_SYS_ADMIN, except where the thread is there already. A thread that cannot be
    /// brought back would act on the wrong network from then on: the process is ended instead.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_current()? {
            return work();
        }
        let home = Self::open_path(Path::new(OWN))?;
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::rustix("setns", format!("path={}", self.path.display()), e))?;
        let _back = Back(home);
        work()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Brings the thread back to the namespace it came from.
struct Back(Netns);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.0.file.as_fd(), Some(LinkNameSpaceType::Network)) {
            eprintln!("bifurcate: setns: the thread cannot return to its own network namespace: {error}");
            std::process::abort();
        }
    }
}

/// CLONE_NEW* of a namespace file (ioctl_ns(2)); an error for any other file.
fn namespace_type(file: BorrowedFd<'_>) -> std::result::Result<i32, i32> {
    use std::os::fd::AsRawFd;
    let args = [file.as_raw_fd() as usize, NS_GET_NSTYPE, 0, 0, 0, 0];
    // SAFETY: NS_GET_NSTYPE takes no pointer; on any other file the request is refused with ENOTTY.
    unsafe { crate::call::call(libc::SYS_ioctl, args) }.map(|kind| kind as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_is_current_and_runs_in_place() {
        let own = Netns::open(None).unwrap();
        assert!(own.is_current().unwrap());
        assert_eq!(own.within(|| Ok(7)), Ok(7));
    }

    #[test]
    fn what_is_no_network_namespace_is_refused() {
        for path in ["/proc/self/ns/mnt", "/etc/passwd"] {
            assert_eq!(Netns::open(Some(path)).unwrap_err().code(), "EINVAL", "{path}");
        }
        assert_eq!(Netns::open(Some("bf-no-such-name")).unwrap_err().code(), "ENOENT");
        assert_eq!(Netns::open(Some("..")).unwrap_err().code(), "EINVAL");
    }
}
