//! The bind ladder: which modes to ask the kernel for, in which order, and when to stop.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use bifurcate_linux::xsk::{Bind, CopyMode, XskSocket, diag};
use bifurcate_linux::{Error, Result};

/// Whether frames may, or must, be written by the device into the pool itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Zero-copy, or an error.
    Require,
    /// Zero-copy where the driver has it, else a copy, and the reason is told.
    #[default]
    Prefer,
    /// The kernel copies.
    Off,
}

/// Where the XDP program that feeds the sockets runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver (XDP_FLAGS_DRV_MODE).
    #[default]
    Driver,
    /// In the kernel's generic receive path (XDP_FLAGS_SKB_MODE): on any device, and always with a copy.
    Generic,
}

/// One set of flags to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) zero_copy: bool,
    pub(super) multi_buffer: bool,
}

/// What to try, best first. Without multi-buffer a longer frame is lost, with a copy it only costs time; so
/// whoever wants multi-buffer gets a copy rather than zero-copy without it.
pub(super) fn ladder(zero_copy: ZeroCopy, mode: Mode, multi_buffer: bool) -> Vec<Attempt> {
    let may_zero_copy = zero_copy != ZeroCopy::Off && mode == Mode::Driver;
    let may_copy = zero_copy != ZeroCopy::Require;
    let mut steps = Vec::new();
    for (multi_buffer, wanted) in [
        (true, multi_buffer),
        (false, !multi_buffer || !may_zero_copy || !may_copy),
    ] {
        if wanted && may_zero_copy {
            steps.push(Attempt {
                zero_copy: true,
                multi_buffer,
            });
        }
        if (wanted || !multi_buffer) && may_copy {
            steps.push(Attempt {
                zero_copy: false,
                multi_buffer,
            });
        }
    }
    steps
}

/// Whether the next step may succeed where this one failed: the driver or the kernel does not know the mode.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.is_unsupported() || error.code() == "EINVAL"
}

/// How long a bind waits for a queue that the kernel calls busy: while somebody has it, and while nobody has it. Then the
/// kernel is about to let go of a socket that was closed, which it does in a kernel thread, and not while another one holds
/// the lock of all interfaces (xp_release_deferred, net/xdp/xsk_buff_pool.c).
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    taken: Duration,
    released: Duration,
}

impl Patience {
    /// Of who opens a queue for itself.
    pub(super) const OPEN: Patience = Patience {
        taken: Duration::from_millis(600),
        released: Duration::from_secs(5),
    };

    /// Of who makes sockets for others, and keeps everybody waiting meanwhile.
    pub(super) const GRANT: Patience = Patience {
        taken: Duration::from_millis(600),
        released: Duration::from_millis(600),
    };

    /// Of a look whether the queue is free: none for who has it, and this much for the kernel.
    pub(super) const fn look(released: Duration) -> Patience {
        Patience {
            taken: Duration::ZERO,
            released,
        }
    }

    /// Whether to try a busy queue again after so long.
    fn goes_on(self, waited: Duration, is_unclaimed: impl FnOnce() -> bool) -> bool {
        waited < self.taken || waited < self.released && is_unclaimed()
    }
}

/// Binds; waits while the queue is still busy, since the kernel lets go of a closed socket's queue a little after the
/// close.
pub(super) fn bind(
    socket: &XskSocket,
    ifindex: u32,
    queue: u32,
    how: Option<Attempt>,
    need_wakeup: bool,
    shared: Option<BorrowedFd<'_>>,
    patience: Patience,
) -> Result<()> {
    let to = Bind {
        ifindex,
        queue,
        copy: match how {
            None => CopyMode::Any,
            Some(Attempt { zero_copy: true, .. }) => CopyMode::ZeroCopy,
            Some(_) => CopyMode::Copy,
        },
        need_wakeup: need_wakeup && shared.is_none(),
        multi_buffer: how.is_some_and(|how| how.multi_buffer),
        shared,
    };
    let begin = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        // Before the try: one follows however long this thread was kept from running.
        let waited = begin.elapsed();
        match socket.bind(&to) {
            Err(error)
                if error.code() == "EBUSY" && patience.goes_on(waited, || is_unclaimed(ifindex, queue)) =>
            {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(160));
            }
            done => return done,
        }
    }
}

/// Whether no socket of the calling thread's network namespace has the queue: a closed one is not listed any more. False
/// where the kernel does not tell.
pub(super) fn is_unclaimed(ifindex: u32, queue: u32) -> bool {
    let has = |socket: &diag::Diag| (socket.ifindex, socket.queue) == (Some(ifindex), queue);
    matches!(diag::sockets(), Ok(Some(all)) if !all.iter().any(has))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(zero_copy: ZeroCopy, mode: Mode, multi_buffer: bool) -> Vec<(bool, bool)> {
        ladder(zero_copy, mode, multi_buffer)
            .iter()
            .map(|a| (a.zero_copy, a.multi_buffer))
            .collect()
    }

    #[test]
    fn require_never_steps_down_to_a_copy() {
        assert_eq!(flags(ZeroCopy::Require, Mode::Driver, false), [(true, false)]);
        assert_eq!(
            flags(ZeroCopy::Require, Mode::Driver, true),
            [(true, true), (true, false)]
        );
        assert_eq!(flags(ZeroCopy::Require, Mode::Generic, false), []);
    }

    #[test]
    fn prefer_takes_a_copy_that_holds_long_frames_over_zero_copy_that_does_not() {
        assert_eq!(
            flags(ZeroCopy::Prefer, Mode::Driver, false),
            [(true, false), (false, false)]
        );
        assert_eq!(
            flags(ZeroCopy::Prefer, Mode::Driver, true),
            [(true, true), (false, true), (false, false)]
        );
    }

    #[test]
    fn a_busy_queue_is_waited_for_longer_where_nobody_has_it() {
        let (soon, late) = (Duration::from_millis(5), Duration::from_secs(2));
        let open = Patience::OPEN;
        assert!(open.goes_on(soon, || false) && open.goes_on(late, || true));
        assert!(!open.goes_on(late, || false) && !open.goes_on(Duration::from_secs(5), || true));
    }

    #[test]
    fn who_serves_others_waits_less_and_a_look_never_for_who_has_the_queue() {
        let (soon, late) = (Duration::from_millis(5), Duration::from_millis(600));
        let grant = Patience::GRANT;
        assert!(grant.goes_on(soon, || false) && !grant.goes_on(late, || true));
        let look = Patience::look(late);
        assert!(!look.goes_on(Duration::ZERO, || false));
        assert!(look.goes_on(soon, || true) && !look.goes_on(late, || true));
        assert!(!Patience::look(Duration::ZERO).goes_on(Duration::ZERO, || true));
    }

    #[test]
    fn off_and_generic_never_ask_for_zero_copy() {
        assert_eq!(
            flags(ZeroCopy::Off, Mode::Driver, true),
            [(false, true), (false, false)]
        );
        assert_eq!(flags(ZeroCopy::Prefer, Mode::Generic, false), [(false, false)]);
    }
}
