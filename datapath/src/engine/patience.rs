//! How long a loop may sleep while something goes on that no descriptor tells of: frames wait for room in a device, or
//! a device for free frames.

use std::time::Duration;

/// The first sleep; each that was in vain makes the next twice as long, so that a device that stays stuck costs nothing.
const FIRST: Duration = Duration::from_millis(1);

/// What a loop remembers of its sleeps.
#[derive(Debug, Default)]
pub struct Patience {
    vain: u32,
}

impl Patience {
    /// Frames arrived: things are getting on.
    #[inline]
    pub fn renew(&mut self) {
        self.vain = 0;
    }

    /// How long to sleep now, at most `longest`: `hurried` says whether something goes on.
    pub fn next(&mut self, hurried: bool, longest: Duration) -> Duration {
        if !hurried {
            self.vain = 0;
            return longest;
        }
        let sleep = FIRST.saturating_mul(1 << self.vain.min(20));
        self.vain = self.vain.saturating_add(1);
        sleep.min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hurried_loop_sleeps_shortly_and_ever_longer_until_frames_arrive() {
        let (mut patience, second) = (Patience::default(), Duration::from_secs(1));
        assert_eq!(patience.next(false, second), second);
        let hurried: Vec<u128> = (0..12).map(|_| patience.next(true, second).as_millis()).collect();
        assert_eq!(hurried, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        patience.renew();
        assert_eq!(patience.next(true, second), FIRST);
        assert_eq!(patience.next(false, second), second);
        assert_eq!(patience.next(true, second), FIRST);
    }
}
