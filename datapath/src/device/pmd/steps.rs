//! Start-up as a page of steps, each with the section of the datasheet that it follows.

use bifurcate_linux::{Error, Result};

/// One step of a driver's start-up.
pub struct Step<N: ?Sized> {
    /// Section of the datasheet.
    pub section: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Does it.
    pub run: fn(&N) -> Result<()>,
}

/// Takes the steps, in order.
///
/// # Errors
/// What a step says, with the step named; those after it are not taken.
pub fn walk<N: ?Sized>(nic: &N, steps: &[Step<N>]) -> Result<()> {
    for step in steps {
        (step.run)(nic).map_err(|error| {
            let args = format!("step '{}' (section {}): {}", step.what, step.section, error.args);
            Error::new(error.call, args, error.errno)
        })?;
    }
    Ok(())
}
