//! Time that a loop has to give its queue back, without what a machine that stood still took of it.

use std::time::{Duration, Instant};

/// The most that one wait counts: whatever keeps a waiting thread for longer keeps the loop from its processor too.
const STEP: Duration = Duration::from_millis(50);

/// How many times the grace may pass by the clock, whatever of it counts: loops that poll at a real-time priority can keep
/// the waiting thread alone from its processor, for good.
const CEILING: u32 = 10;

/// What is left of it.
#[derive(Debug)]
pub struct Grace {
    left: Duration,
    end: Instant,
}

impl Grace {
    /// All of it, from now on.
    #[must_use]
    pub fn of_millis(millis: u32) -> Grace {
        Grace::begun(Duration::from_millis(millis.into()), Instant::now())
    }

    fn begun(grace: Duration, now: Instant) -> Grace {
        Grace {
            left: grace,
            end: now + grace * CEILING,
        }
    }

    /// How long the next wait may take; none when it is over.
    #[must_use]
    pub fn step(&self) -> Option<Duration> {
        self.step_at(Instant::now())
    }

    fn step_at(&self, now: Instant) -> Option<Duration> {
        (self.left > Duration::ZERO && now < self.end).then(|| self.left.min(STEP))
    }

    /// A wait is over that took so long.
    pub fn waited(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(took.min(STEP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    /// How long it lasts by the clock when each wait takes `took`.
    fn lasts(took: Duration) -> Duration {
        let begin = Instant::now();
        let mut grace = Grace::begun(GRACE, begin);
        let mut now = begin;
        while grace.step_at(now).is_some() {
            now += took;
            grace.waited(took);
        }
        now - begin
    }

    #[test]
    fn a_wait_counts_what_it_took_and_one_that_was_kept_a_step() {
        assert_eq!(lasts(STEP), GRACE);
        assert_eq!(lasts(Duration::from_millis(1)), GRACE);
        assert_eq!(lasts(2 * STEP), 2 * GRACE);
    }

    #[test]
    fn it_is_over_by_the_clock_when_the_waiting_thread_is_kept_for_good() {
        assert_eq!(lasts(Duration::from_secs(1)), CEILING * GRACE);
        assert_eq!(lasts(Duration::from_secs(3600)), Duration::from_secs(3600));
    }

    #[test]
    fn none_is_none() {
        assert!(Grace::of_millis(0).step().is_none());
        assert!(Grace::of_millis(u32::MAX).step().is_some());
    }
}
