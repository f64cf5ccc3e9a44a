//! Threads that turn lanes until they are told to stop, asleep while nothing arrives.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bifurcate_linux::event::{EventFd, Interest, Ready, WAIT_MAX, wait};
use bifurcate_linux::{Error, Result, thread};

use crate::device::State;

use super::Lane;
use super::pace::Pace;
use super::patience::Patience;

/// How to run lanes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The cores to pin threads to, one thread a core, lanes dealt out in turn. Empty: a thread a lane, not
    /// pinned.
    pub cores: Vec<u32>,
    /// Poll without ever sleeping.
    pub busy_poll: bool,
}

/// How long a loop sleeps at most: the kernel does not wake a sleeper of every device that goes away.
const LOOK: Duration = Duration::from_secs(1);

/// How long a loop rests when a device keeps reporting trouble (it went down) and gives nothing.
const TROUBLE_REST: Duration = Duration::from_millis(50);

/// Lanes that one thread may have: their descriptors and the stop event are polled together.
const LANES_MAX: usize = WAIT_MAX - 1;

/// Running loops. Dropping it stops them and waits.
pub struct Run {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<Ended>>,
    lanes: usize,
}

/// A loop that has ended: its lanes, each with its place among all that were started, and why it ended.
type Ended = (Vec<(usize, Lane)>, Result<()>);

struct Stop {
    asked: AtomicBool,
    event: EventFd,
}

/// Starts threads that turn `lanes` until [`Run::stop`], or until every device of a thread's lanes is gone.
///
/// # Errors
/// `EINVAL` without lanes or with more than 63 for one thread; what making the stop event or a thread
/// reports. A core that cannot be used is told by [`Run::join`].
pub fn start(lanes: Vec<Lane>, options: &Options) -> Result<Run> {
    let threads = if options.cores.is_empty() {
        lanes.len()
    } else {
        options.cores.len().min(lanes.len())
    };
    if threads == 0 || lanes.len().div_ceil(threads) > LANES_MAX {
        let args = format!("{} lanes in {threads} threads", lanes.len());
        return Err(Error::new("start loops", args, 22));
    }
    let mut shares: Vec<Vec<(usize, Lane)>> = (0..threads).map(|_| Vec::new()).collect();
    let count = lanes.len();
    for (i, lane) in lanes.into_iter().enumerate() {
        shares[i % threads].push((i, lane));
    }
    let mut run = Run {
        stop: Arc::new(Stop {
            asked: AtomicBool::new(false),
            event: EventFd::new()?,
        }),
        threads: Vec::new(),
        lanes: count,
    };
    for (i, mut lanes) in shares.into_iter().enumerate() {
        let stop = Arc::clone(&run.stop);
        let core = options.cores.get(i).copied();
        let busy_poll = options.busy_poll;
        let thread = std::thread::Builder::new()
            .name(format!("bf-loop-{i}"))
            .spawn(move || {
                let ended = core
                    .map_or(Ok(()), thread::pin)
                    .and_then(|()| turn_until_stopped(&mut lanes, &stop, busy_poll));
                (lanes, ended)
            })
            .map_err(|e| Error::io("clone", format!("thread bf-loop-{i}"), &e))?;
        run.threads.push(thread);
    }
    Ok(run)
}

impl Run {
    /// Asks every loop to stop after its batch. Does not wait.
    pub fn stop(&self) {
        self.stop.asked.store(true, Ordering::Relaxed);
        self.stop.event.raise();
    }

    /// Whether every loop has ended, told to or not.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Whether a loop has ended, told to or not: none ends by itself but for trouble or a device that is gone.
    #[must_use]
    pub fn has_ended_loop(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every loop has ended, told to or with its devices gone; gives the lanes back, in the order in
    /// which they were started.
    ///
    /// # Errors
    /// The first error of a loop: a core that cannot be used, a poll(2) that failed, or `ECANCELED` when a
    /// handler panicked. All lanes are then dropped; [`Run::take_apart`] keeps them.
    pub fn join(self) -> Result<Vec<Lane>> {
        let (lanes, ended) = self.take_apart();
        ended.map(|()| lanes.into_iter().flatten().collect())
    }

    /// As [`Run::join`], with the lanes however the loops ended: one place for each that was started, `None`
    /// where a handler panicked.
    pub fn take_apart(mut self) -> (Vec<Option<Lane>>, Result<()>) {
        self.wait()
    }

    fn wait(&mut self) -> (Vec<Option<Lane>>, Result<()>) {
        let mut lanes: Vec<Option<Lane>> = (0..self.lanes).map(|_| None).collect();
        let mut first = Ok(());
        for thread in self.threads.drain(..) {
            let ended = match thread.join() {
                Ok((theirs, ended)) => {
                    for (place, lane) in theirs {
                        lanes[place] = Some(lane);
                    }
                    ended
                }
                Err(panic) => {
                    let text = panic
                        .downcast_ref::<&str>()
                        .map(|s| (*s).to_owned())
                        .or_else(|| panic.downcast_ref::<String>().cloned())
                        .unwrap_or_default();
                    Err(Error::new("handler", format!("panicked: {text}"), 125))
                }
            };
            first = first.and(ended);
        }
        (lanes, first)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            drop(self.wait());
        }
    }
}

fn turn_until_stopped(lanes: &mut [(usize, Lane)], stop: &Stop, busy_poll: bool) -> Result<()> {
    let mut pace = Pace::new(Instant::now());
    let mut patience = Patience::default();
    while !stop.asked.load(Ordering::Relaxed) {
        let mut got = 0;
        for (_, lane) in &mut *lanes {
            got += lane.turn();
        }
        pace.arrived(got);
        if got > 0 {
            patience.renew();
        }
        if got == 0 {
            if lanes.iter().all(|(_, lane)| lane.state() == State::Gone) {
                break;
            }
            if busy_poll {
                continue;
            }
            if let Some(nap) = pace.nap(Instant::now()) {
                std::thread::sleep(nap);
            } else if lanes.iter_mut().all(|(_, lane)| lane.prepare_to_wait()) {
                let hurried = lanes.iter().any(|(_, lane)| lane.is_hurried());
                sleep(lanes, stop, patience.next(hurried, LOOK))?;
                pace.woke(Instant::now());
            }
        }
    }
    Ok(())
}

/// Sleeps until a lane may have frames, the stop event is raised, or `longest` is over. Returns at once when a lane has no
/// descriptor to wait for.
fn sleep(lanes: &[(usize, Lane)], stop: &Stop, longest: Duration) -> Result<()> {
    let mut fds = [(stop.event.as_fd(), Interest::Read); WAIT_MAX];
    let count = lanes.len() + 1;
    for (slot, (_, lane)) in fds[1..].iter_mut().zip(lanes) {
        match lane.ready_fd() {
            Some(fd) => slot.0 = fd,
            None => {
                std::thread::yield_now();
                return Ok(());
            }
        }
    }
    let mut ready = [Ready::default(); WAIT_MAX];
    wait(&fds[..count], &mut ready, Some(longest))?;
    // A device that is down makes poll(2) return at once, again and again: rest, but hear the stop.
    let lanes = &ready[1..count];
    if lanes.iter().any(|r| r.error || r.gone) && !lanes.iter().any(|r| r.read) && !ready[0].read {
        wait(&fds[..1], &mut ready, Some(TROUBLE_REST))?;
    }
    Ok(())
}
