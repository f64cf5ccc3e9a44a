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
use super::pace::{NAP, Pace};

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
    threads: Vec<JoinHandle<Result<Vec<Lane>>>>,
}

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
    let mut shares: Vec<Vec<Lane>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, lane) in lanes.into_iter().enumerate() {
        shares[i % threads].push(lane);
    }
    let mut run = Run {
        stop: Arc::new(Stop {
            asked: AtomicBool::new(false),
            event: EventFd::new()?,
        }),
        threads: Vec::new(),
    };
    for (i, lanes) in shares.into_iter().enumerate() {
        let stop = Arc::clone(&run.stop);
        let core = options.cores.get(i).copied();
        let busy_poll = options.busy_poll;
        let thread = std::thread::Builder::new()
            .name(format!("bf-loop-{i}"))
            .spawn(move || {
                if let Some(core) = core {
                    thread::pin(core)?;
                }
                turn_until_stopped(lanes, &stop, busy_poll)
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

    /// Waits until every loop has ended, told to or with its devices gone; gives the lanes back.
    ///
    /// # Errors
    /// The first error of a loop: a core that cannot be used, a poll(2) that failed, or `ECANCELED` when a
    /// handler panicked. The lanes of the loops that ended well are then gone too.
    pub fn join(mut self) -> Result<Vec<Lane>> {
        self.wait()
    }

    fn wait(&mut self) -> Result<Vec<Lane>> {
        let mut lanes = Vec::new();
        let mut first = None;
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(more)) => lanes.extend(more),
                Ok(Err(error)) => first = first.or(Some(error)),
                Err(panic) => {
                    let text = panic
                        .downcast_ref::<&str>()
                        .map(|s| (*s).to_owned())
                        .or_else(|| panic.downcast_ref::<String>().cloned())
                        .unwrap_or_default();
                    first = first.or(Some(Error::new("handler", format!("panicked: {text}"), 125)));
                }
            }
        }
        first.map_or(Ok(lanes), Err)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            let _ = self.wait();
        }
    }
}

fn turn_until_stopped(mut lanes: Vec<Lane>, stop: &Stop, busy_poll: bool) -> Result<Vec<Lane>> {
    let mut pace = Pace::new(Instant::now());
    while !stop.asked.load(Ordering::Relaxed) {
        let mut got = 0;
        for lane in &mut lanes {
            got += lane.turn();
        }
        pace.arrived(got);
        if got == 0 {
            if lanes.iter().all(|lane| lane.state() == State::Gone) {
                break;
            }
            if busy_poll {
                continue;
            }
            if pace.naps(Instant::now()) {
                std::thread::sleep(NAP);
            } else {
                sleep(&lanes, stop)?;
            }
        }
    }
    Ok(lanes)
}

/// Sleeps until a lane may have frames or the stop event is raised. Returns at once when a lane has no
/// descriptor to wait for.
fn sleep(lanes: &[Lane], stop: &Stop) -> Result<()> {
    let mut fds = [(stop.event.as_fd(), Interest::Read); WAIT_MAX];
    let count = lanes.len() + 1;
    for (slot, lane) in fds[1..].iter_mut().zip(lanes) {
        match lane.ready_fd() {
            Some(fd) => slot.0 = fd,
            None => {
                std::thread::yield_now();
                return Ok(());
            }
        }
    }
    let mut ready = [Ready::default(); WAIT_MAX];
    wait(&fds[..count], &mut ready, Some(LOOK))?;
    // A device that is down makes poll(2) return at once, again and again: rest, but hear the stop.
    let lanes = &ready[1..count];
    if lanes.iter().any(|r| r.error || r.gone) && !lanes.iter().any(|r| r.read) && !ready[0].read {
        wait(&fds[..1], &mut ready, Some(TROUBLE_REST))?;
    }
    Ok(())
}
