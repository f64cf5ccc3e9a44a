//! A file that one process at a time has: a lock that the kernel takes back when its holder ends, however it ends.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// Who may open the file: its owner.
const OWNERS: Mode = Mode::RUSR.union(Mode::WUSR);

/// The lock on a file (flock(2)), held until this is dropped or the process ends.
///
/// The lock is the open file's, so a copy of the descriptor in another process would hold it too: it is close-on-exec, and
/// never passed. A process that another thread starts has a copy between its fork and its exec all the same: dropped at
/// that moment, the lock is free a little later.
#[derive(Debug)]
pub struct FileLock {
    _file: OwnedFd,
}

impl FileLock {
    /// Locks the file at `path`, which is made where there is none, and is readable to its owner alone from then on: who can
    /// open it could hold it. `None` when another has the lock; the file stays in any case, since who removes one that is
    /// locked makes room for a second lock.
    ///
    /// # Errors
    /// What open(2) reports, `ELOOP` of a symbolic link; `EPERM` of a file that is neither this user's nor root's, or that
    /// only its owner can close to others; what flock(2) reports.
    pub fn take(path: &Path) -> Result<Option<FileLock>> {
        let args = || format!("path={}", path.display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, OWNERS).map_err(|e| Error::rustix("open", args(), e))?;
        let found = rustix::fs::fstat(&file).map_err(|e| Error::rustix("fstat", args(), e))?;
        let owner = found.st_uid;
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(Error::new(
                "open",
                format!("{} owner={owner}", args()),
                libc::EPERM,
            ));
        }
        // One that was there before may be open to others.
        if Mode::from_raw_mode(found.st_mode) != OWNERS {
            rustix::fs::fchmod(&file, OWNERS).map_err(|e| Error::rustix("fchmod", args(), e))?;
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(FileLock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(Error::rustix("flock", args(), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            Place(std::env::temp_dir().join(format!("bf-lock-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Whether it can be taken: what another test of this process starts has a copy of it between fork and exec.
    fn is_free_soon(place: &Place) -> bool {
        (0..1000).any(|_| {
            let free = FileLock::take(&place.0).unwrap().is_some();
            if !free {
                std::thread::sleep(Duration::from_millis(10));
            }
            free
        })
    }

    #[test]
    fn one_at_a_time_has_it_and_nobody_else_can_open_it() {
        let place = Place::new("one");
        let first = FileLock::take(&place.0).unwrap().unwrap();
        assert!(FileLock::take(&place.0).unwrap().is_none());
        let mode = std::fs::metadata(&place.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(is_free_soon(&place));
    }

    #[test]
    fn one_that_others_could_open_is_closed_to_them() {
        let place = Place::new("wide");
        std::fs::write(&place.0, "").unwrap();
        std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(0o666)).unwrap();
        let _lock = FileLock::take(&place.0).unwrap().unwrap();
        let mode = std::fs::metadata(&place.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn one_of_another_user_is_refused_and_left_as_it_is() {
        if !rustix::process::geteuid().is_root() {
            println!(
                "SKIPPED one_of_another_user_is_refused_and_left_as_it_is: needs root, to give a file away"
            );
            return;
        }
        let place = Place::new("other");
        std::fs::write(&place.0, "").unwrap();
        std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::chown(&place.0, Some(65_534), None).unwrap();
        let refused = FileLock::take(&place.0).unwrap_err();
        assert_eq!(refused.code(), "EPERM");
        assert!(refused.args.ends_with("owner=65534"), "{refused}");
        let mode = std::fs::metadata(&place.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
    }

    #[test]
    fn a_process_that_was_started_meanwhile_does_not_keep_it() {
        let place = Place::new("child");
        let lock = FileLock::take(&place.0).unwrap().unwrap();
        // It reads until its input ends, so it is there until this test says otherwise.
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(lock);
        let free = is_free_soon(&place);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(free);
    }

    #[test]
    fn what_a_link_points_to_is_not_locked() {
        let (place, target) = (Place::new("link"), Place::new("target"));
        std::os::unix::fs::symlink(&target.0, &place.0).unwrap();
        assert_eq!(FileLock::take(&place.0).unwrap_err().code(), "ELOOP");
        assert!(!target.0.exists());
    }
}
