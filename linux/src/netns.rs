//! Network namespaces: opened by name, by path or as the thread's own, and entered for the length of a closure.

use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The calling thread's namespace; `/proc/self` would be the first thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where ip-netns(8) keeps named namespaces.
const NAMED: &str = "/run/netns";

/// include/uapi/linux/nsfs.h: `_IO(0xb7, 1)`, `_IO(0xb7, 3)` and `_IO(0xb7, 4)`.
const NS_GET_USERNS: usize = 0xb701;
const NS_GET_NSTYPE: usize = 0xb703;
const NS_GET_OWNER_UID: usize = 0xb704;

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
        Self::of_file(file, path)
    }

    /// The namespace whose file that is; `path` is for errors. EINVAL when it is a file of another kind.
    pub(crate) fn of_file(file: OwnedFd, path: &Path) -> Result<Self> {
        let args = || format!("path={}", path.display());
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

    /// Who made the user namespace that this one belongs to, and so has every right over it (ioctl_ns(2)): 0 for one
    /// that root made outside of any.
    ///
    /// # Errors
    /// `EPERM`: it belongs to a user namespace that is none of the caller's.
    pub fn owner(&self) -> Result<u32> {
        let args = || format!("path={}", self.path.display());
        let fd = self.file.as_raw_fd() as usize;
        // SAFETY: NS_GET_USERNS takes no pointer and gives a descriptor.
        let users = unsafe { crate::call::call(libc::SYS_ioctl, [fd, NS_GET_USERNS, 0, 0, 0, 0]) }
            .map_err(|errno| Error::new("ioctl(NS_GET_USERNS)", args(), errno))?;
        // SAFETY: the kernel just opened this descriptor for us; nobody else knows it.
        let users = unsafe { OwnedFd::from_raw_fd(users as i32) };
        let mut uid = 0u32;
        let pointer = std::ptr::from_mut(&mut uid) as usize;
        let call = [users.as_raw_fd() as usize, NS_GET_OWNER_UID, pointer, 0, 0, 0];
        // SAFETY: the kernel writes one uid_t, which is what `uid` is, while it is alive.
        unsafe { crate::call::call(libc::SYS_ioctl, call) }
            .map_err(|errno| Error::new("ioctl(NS_GET_OWNER_UID)", args(), errno))?;
        Ok(uid)
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
    fn the_machines_own_namespace_is_roots() {
        // A test that runs in a container's user namespace sees no further than that one's maker, or not even there.
        match Netns::open(None).unwrap().owner() {
            Ok(uid) => assert!(uid == 0 || uid == rustix::process::geteuid().as_raw(), "{uid}"),
            Err(error) => assert_eq!(error.code(), "EPERM"),
        }
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
