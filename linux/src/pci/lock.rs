//! One owner a function: a lock that ends with its process, on configuration space.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::facts::path;
use super::{ConfigSpace, Function};
use crate::{Error, Result};

/// How long a card whose last owner was killed may need until it is quiet.
const QUIET: Duration = Duration::from_secs(2);

impl Function {
    /// Opens configuration space, by sysfs.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn open_config(&self) -> Result<ConfigSpace> {
        let file = self.folder().join("config");
        let config = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file)
            .map_err(|e| Error::io("open", path(&file), &e))?;
        Ok(ConfigSpace::new(
            OwnedFd::from(config),
            0,
            self.address.to_string(),
        ))
    }

    /// Locks the function for who holds what is returned: UIO itself would let many open it, and two commands could
    /// bind it at once. A guardian that quiets the card after its owner was killed holds the same lock, and is waited
    /// for.
    ///
    /// # Errors
    /// `EBUSY` when another has it; what open(2) reports.
    pub fn lock(&self) -> Result<ConfigSpace> {
        let config = self.open_config()?;
        let end = Instant::now() + QUIET;
        loop {
            // Before the try: one follows however long this thread was kept from running.
            let late = Instant::now() > end;
            match rustix::fs::flock(&config, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(config),
                Err(rustix::io::Errno::WOULDBLOCK) if !late => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => {
                    let why = format!("address={}: another process has it", self.address);
                    return Err(Error::new("pci", why, libc::EBUSY));
                }
            }
        }
    }
}
