//! Taking a function from one driver and giving it to another, by `driver_override`.

use std::fs;

use super::Function;
use super::facts::path;
use crate::{Error, Result};

impl Function {
    /// Gives the function to `driver`, and to no other until [`Function::give_back`]: `driver_override` names it,
    /// so that no driver's list of ids has to change for all cards of a kind.
    ///
    /// # Errors
    /// `ENOENT` when the kernel has no such driver (its module is not loaded); what the driver's probe said.
    pub fn bind_to(&self, driver: &str) -> Result<()> {
        if self.driver().as_deref() == Some(driver) {
            return self.write("driver_override", driver);
        }
        if !self.bus.has_driver(driver) {
            let why = format!(
                "address={} driver={driver}: the kernel has no such driver now",
                self.address
            );
            return Err(Error::new("bind", why, libc::ENOENT));
        }
        self.write("driver_override", driver)?;
        self.unbind()?;
        let probed = self.probe();
        if self.driver().as_deref() == Some(driver) {
            return Ok(());
        }
        let errno = probed.err().map_or(libc::ENODEV, |error| error.errno);
        let why = format!(
            "address={} driver={driver}: the driver did not take it",
            self.address
        );
        Err(Error::new("bind", why, errno))
    }

    /// Takes it from the driver that has it, if any.
    ///
    /// # Errors
    /// Whatever writing the file reports.
    pub fn unbind(&self) -> Result<()> {
        if self.driver().is_none() {
            return Ok(());
        }
        self.write("driver/unbind", &self.address.to_string())
    }

    /// Forgets the override and lets the kernel find the driver that it would have chosen by itself; gives it.
    ///
    /// # Errors
    /// Whatever writing the files reports.
    pub fn give_back(&self) -> Result<Option<String>> {
        self.unbind()?;
        // An empty line clears it.
        self.write("driver_override", "\n")?;
        // No driver that wants it is no error: it had none before, either.
        let _ = self.probe();
        Ok(self.driver())
    }

    /// The driver that alone may have it, as `driver_override` says; none when every driver may.
    #[must_use]
    pub fn driver_override(&self) -> Option<String> {
        let text = self.read("driver_override").ok()?;
        Some(text.trim().to_owned()).filter(|name| !name.is_empty() && name != "(null)")
    }

    /// Makes `count` virtual functions of this physical one; 0 removes them. The kernel changes from one number to
    /// another only by way of 0, which is done here.
    ///
    /// # Errors
    /// `ENOENT` when it has no SR-IOV; `ERANGE` for more than it can have; what its driver says.
    pub fn set_virtual_functions(&self, count: u32) -> Result<()> {
        let now: u32 = self.read("sriov_numvfs")?.trim().parse().unwrap_or(0);
        if now == count {
            return Ok(());
        }
        if now != 0 {
            self.write("sriov_numvfs", "0")?;
        }
        if count == 0 {
            return Ok(());
        }
        self.write("sriov_numvfs", &count.to_string())
    }

    /// Whether the kernel's driver core looks for a driver for the virtual functions it makes.
    ///
    /// # Errors
    /// Whatever writing the file reports.
    pub fn set_drivers_autoprobe(&self, on: bool) -> Result<()> {
        self.write("sriov_drivers_autoprobe", if on { "1" } else { "0" })
    }

    /// Resets the function, where the kernel knows a way.
    ///
    /// # Errors
    /// `ENOENT` where it knows none; what the reset said.
    pub fn reset(&self) -> Result<()> {
        self.write("reset", "1")
    }

    fn probe(&self) -> Result<()> {
        let file = self.bus.root().join("drivers_probe");
        fs::write(&file, self.address.to_string()).map_err(|e| Error::io("write", path(&file), &e))
    }

    fn write(&self, name: &str, value: &str) -> Result<()> {
        let file = self.folder().join(name);
        fs::write(&file, value)
            .map_err(|e| Error::io("write", format!("{} value={}", path(&file), value.trim()), &e))
    }
}
