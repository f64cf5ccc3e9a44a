//! When a loop that finds nothing should nap for a moment instead of sleeping until the next frame.
//!
//! A sleeper is woken for every frame, which costs the loop, and the processor that delivers the frame, more
//! than the frame itself. While many arrive it is cheaper to look away for a moment and take what came
//! together: what an interrupt moderation of a card does. A nap is only taken after many frames arrived in a
//! short time, and given up as soon as one was not worth it: so who sends one frame and waits for the answer
//! is answered at once.

use std::time::{Duration, Instant};

/// How long a nap is. At a million frames a second 50 arrive meanwhile, with the timer's slack 100: less than
/// the smallest sensible ring.
pub(super) const NAP: Duration = Duration::from_micros(50);

/// A nap is tried when this many frames arrived within [`WINDOW`]: 50,000 a second.
const MANY: usize = 64;
const WINDOW: Duration = Duration::from_micros(1280);

/// A nap that brought at least this many frames was worth it.
const WORTH: usize = 6;

/// After a nap that was not, none is tried for this long.
const PENANCE: Duration = Duration::from_millis(2);

/// What a loop remembers of its last millisecond.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    frames: usize,
    napped: bool,
    not_before: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace {
            since: now,
            frames: 0,
            napped: false,
            not_before: now,
        }
    }

    /// Frames arrived.
    #[inline]
    pub(super) fn arrived(&mut self, frames: usize) {
        self.frames = self.frames.saturating_add(frames);
    }

    /// Nothing is there any more at `now`: whether to nap, or else to sleep until something comes.
    pub(super) fn naps(&mut self, now: Instant) -> bool {
        if self.napped {
            self.napped = self.frames >= WORTH;
            if !self.napped {
                self.not_before = now + PENANCE;
            }
            self.restart(now);
            return self.napped;
        }
        let elapsed = now.duration_since(self.since);
        if self.frames < MANY {
            if elapsed > WINDOW {
                self.restart(now);
            }
            return false;
        }
        self.restart(now);
        self.napped = elapsed <= WINDOW && now >= self.not_before;
        self.napped
    }

    fn restart(&mut self, now: Instant) {
        self.since = now;
        self.frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `frames` arrive one each `micros` microseconds, each found by a loop that then asks; gives how
    /// often it was told to nap.
    fn naps(frames: u32, micros: u64) -> u32 {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut naps = 0;
        let mut waiting = 0;
        let mut end_of_nap = now;
        for _ in 0..frames {
            now += Duration::from_micros(micros);
            waiting += 1;
            if now >= end_of_nap {
                pace.arrived(waiting);
                waiting = 0;
                if pace.naps(now) {
                    naps += 1;
                    end_of_nap = now + NAP;
                }
            }
        }
        naps
    }

    #[test]
    fn a_flood_is_taken_nap_by_nap() {
        // A million a second: 50 a nap, after the first 64.
        let naps = naps(100_000, 1);
        assert!((1900..=2000).contains(&naps), "{naps}");
    }

    #[test]
    fn a_trickle_wakes_the_loop_each_time() {
        assert_eq!(naps(10_000, 100), 0);
    }

    #[test]
    fn a_nap_that_brings_little_is_not_tried_again_soon() {
        // 62,500 a second: enough to try, too few in a nap to go on.
        let naps = naps(62_500, 16);
        assert!((1..=500).contains(&naps), "{naps} in a second");
    }
}
