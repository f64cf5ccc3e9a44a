//! When a loop that finds nothing should nap for a moment instead of sleeping until the next frame.
//!
//! A sleeper is woken for every frame, which costs the loop, and the processor that delivers the frame, more
//! than the frame itself. While many arrive it is cheaper to look away for a moment and take what came
//! together: what an interrupt moderation of a card does. A nap is only taken after many frames arrived in a
//! short time, and given up as soon as one was not worth it: so who sends one frame and waits for the answer
//! is answered at once.

use std::time::{Duration, Instant};

/// How long a nap is at least and at most, as interrupt moderation has it: long enough to pay for the switch to
/// another thread and back, short enough that no ring of 512 frames overflows at a million frames a second.
const SHORTEST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_micros(200);

/// A nap that brought fewer frames than this makes the next one longer, one that brought more than
/// [`PLENTY`] makes it shorter.
const FEW: usize = 128;
const PLENTY: usize = 512;

/// A nap is tried when this many frames arrived within [`WINDOW`], as in a burst or at 50,000 a second and more.
/// Who waits for each answer before he asks again has one frame under way, and is never made to wait.
const MANY: usize = 4;
const WINDOW: Duration = Duration::from_micros(80);

/// A nap that brought at least this many frames was worth it: it stood for two wake-ups.
const WORTH: usize = 2;

/// After a nap that was not, none is tried for this long.
const PENANCE: Duration = Duration::from_micros(200);

/// What a loop remembers of its last moments.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    frames: usize,
    /// The nap under way, or the one that has just ended.
    nap: Option<Duration>,
    not_before: Instant,
}

impl Pace {
    /// A loop that begins at `now`.
    pub fn new(now: Instant) -> Pace {
        Pace {
            since: now,
            frames: 0,
            nap: None,
            not_before: now,
        }
    }

    /// Frames arrived.
    #[inline]
    pub fn arrived(&mut self, frames: usize) {
        self.frames = self.frames.saturating_add(frames);
    }

    /// The loop was woken at `now`: what arrives from here on may be a burst, however long it has slept.
    #[inline]
    pub fn woke(&mut self, now: Instant) {
        if now.duration_since(self.since) > WINDOW {
            self.restart(now);
        }
    }

    /// Nothing is there any more at `now`: how long to nap, or None to sleep until something comes.
    pub fn nap(&mut self, now: Instant) -> Option<Duration> {
        let brought = self.frames;
        let elapsed = now.duration_since(self.since);
        if let Some(last) = self.nap {
            self.nap = match brought {
                0..WORTH => {
                    self.not_before = now + PENANCE;
                    None
                }
                WORTH..FEW => Some((last * 2).min(LONGEST)),
                FEW..=PLENTY => Some(last),
                _ => Some((last / 2).max(SHORTEST)),
            };
            self.restart(now);
        } else if brought >= MANY {
            let burst = elapsed <= WINDOW && now >= self.not_before;
            self.nap = burst.then_some(SHORTEST);
            self.restart(now);
        } else if elapsed > WINDOW {
            self.restart(now);
        }
        self.nap
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
                pace.woke(now);
                pace.arrived(waiting);
                waiting = 0;
                if let Some(nap) = pace.nap(now) {
                    naps += 1;
                    end_of_nap = now + nap;
                }
            }
        }
        naps
    }

    #[test]
    fn a_flood_is_taken_nap_by_nap() {
        // A million a second: 200 a nap once the naps have grown.
        let naps = naps(100_000, 1);
        assert!((490..=520).contains(&naps), "{naps}");
    }

    #[test]
    fn a_trickle_wakes_the_loop_each_time() {
        assert_eq!(naps(10_000, 100), 0);
    }

    #[test]
    fn a_steady_middle_rate_is_taken_nap_by_nap_too() {
        // 62,500 a second: a dozen a nap instead of a dozen wake-ups.
        let naps = naps(62_500, 16);
        assert!((4_000..=5_500).contains(&naps), "{naps} in a second");
    }

    #[test]
    fn a_burst_is_napped_through_and_then_slept() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.arrived(8);
        assert!(pace.nap(now).is_some(), "more of the burst may follow");
        now += SHORTEST;
        assert!(pace.nap(now).is_none(), "nothing did");
        pace.arrived(8);
        assert!(pace.nap(now).is_none(), "not tried again at once");
        now += PENANCE;
        pace.woke(now);
        pace.arrived(8);
        assert!(pace.nap(now).is_some(), "the next burst");
    }
}
