//! Time that a loop has to give its queue back, without what a machine that stood still took of it.

use std::time::Duration;

/// The most that one wait counts: whatever keeps a waiting thread for longer keeps the loop from its processor too.
const STEP: Duration = Duration::from_millis(50);

/// What is left of it.
pub(crate) struct Grace {
    left: Duration,
}

impl Grace {
    /// All of it.
    pub(crate) fn of_millis(millis: u32) -> Grace {
        Grace {
            left: Duration::from_millis(millis.into()),
        }
    }

    /// How long the next wait may take; none when it is over.
    pub(crate) fn step(&self) -> Option<Duration> {
        (self.left > Duration::ZERO).then(|| self.left.min(STEP))
    }

    /// A wait is over that took so long.
    pub(crate) fn waited(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(took.min(STEP));
    }
}
