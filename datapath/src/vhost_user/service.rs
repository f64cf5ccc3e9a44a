//! The thread that has a port's connection: gets one, serves it to its end, gets the next.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bifurcate_linux::event::{EventFd, Interest, Ready, wait};
use bifurcate_linux::stream::{Listener, Stream};
use bifurcate_linux::{Error, Result};

use super::Link;

/// Messages after which a conversation looks whether it is to stop, however many more there are.
pub const MESSAGES_A_LOOK: usize = 64;
/// How long before a socket is tried again, also one that is there: whoever listens may refuse us each time.
const RETRY: Duration = Duration::from_millis(100);

/// Where connections come from.
#[derive(Debug)]
pub enum Source {
    /// Others connect to a socket of ours.
    Listen(Listener),
    /// We connect to another's; the first connection is there already.
    Connect(PathBuf, Option<Stream>),
    /// This connection and no other.
    One(Option<Stream>),
}

impl Source {
    /// Listens at `path`, or connects to it.
    ///
    /// # Errors
    /// `EADDRINUSE` when somebody listens there already; `ENOENT` or `ECONNREFUSED` when nobody does whom we are to
    /// connect to.
    pub fn at(path: &Path, server: bool) -> Result<Source> {
        Ok(if server {
            Source::Listen(Listener::bind(path)?)
        } else {
            Source::Connect(path.to_owned(), Some(Stream::connect(path)?))
        })
    }

    /// The next connection; `None` when there will be none.
    fn next(&mut self, inner: &Inner) -> Result<Option<Stream>> {
        loop {
            if inner.is_stopped() {
                return Ok(None);
            }
            match self {
                Source::One(stream) => return Ok(stream.take()),
                Source::Listen(listener) => {
                    if let Some(stream) = listener.accept()? {
                        return Ok(Some(stream));
                    }
                    inner.wait(&[(listener.as_fd(), Interest::Read)], None)?;
                }
                Source::Connect(path, first) => {
                    if let Some(stream) = first.take() {
                        return Ok(Some(stream));
                    }
                    inner.wait(&[], Some(RETRY))?;
                    if inner.is_stopped() {
                        return Ok(None);
                    }
                    if let Ok(stream) = Stream::connect(path) {
                        return Ok(Some(stream));
                    }
                }
            }
        }
    }
}

/// How a port's connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Somebody is at the other end.
    pub connected: bool,
    /// Connections so far.
    pub connections: u64,
    /// The features that were negotiated with whom is or was last there.
    pub features: u64,
    /// Why the last connection ended, when it was not by the other end's close.
    pub error: Option<String>,
    /// There will be no other connection.
    pub over: bool,
}

/// What the thread and the port share.
#[derive(Debug)]
pub struct Inner {
    stop: EventFd,
    stopped: AtomicBool,
    /// There is to be no connection after the one that is there.
    last: AtomicBool,
    status: Mutex<Status>,
}

impl Inner {
    /// How the connection is now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Notes what was negotiated.
    pub fn set_features(&self, features: u64) {
        self.lock().features = features;
    }

    /// Lets no other connection follow: the port cannot serve one any more.
    pub fn end(&self) {
        self.last.store(true, Ordering::Release);
    }

    /// Whether the port is being closed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until a descriptor is ready, the port is closed or `timeout` has passed; says of each descriptor whether it
    /// is.
    ///
    /// # Errors
    /// What ppoll(2) reports.
    pub fn wait(
        &self,
        fds: &[(std::os::fd::BorrowedFd<'_>, Interest)],
        timeout: Option<Duration>,
    ) -> Result<[bool; 3]> {
        let mut all = vec![(self.stop.as_fd(), Interest::Read)];
        all.extend_from_slice(fds);
        let mut ready = [Ready::default(); 4];
        wait(&all, &mut ready, timeout)?;
        Ok([1, 2, 3].map(|at| ready[at].any()))
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Whole values are stored: nothing is left half done.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread. Dropping it ends the connection and waits for it.
#[derive(Debug)]
pub struct Service {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts a thread named `name` that serves each connection of `source` by `serve`, until the Service is dropped or
    /// there is none any more. `serve` is to end when [`Inner::is_stopped`]; a clean end of the connection is
    /// `ECONNRESET`.
    ///
    /// # Errors
    /// What making the event or the thread reports.
    pub fn start(
        name: &str,
        mut source: Source,
        mut serve: impl FnMut(Link, &Inner) -> Result<()> + Send + 'static,
    ) -> Result<Service> {
        const ECONNRESET: i32 = 104;
        let inner = Arc::new(Inner {
            stop: EventFd::new()?,
            stopped: AtomicBool::new(false),
            last: AtomicBool::new(false),
            status: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        let body = move || {
            loop {
                match source.next(&shared) {
                    Ok(Some(stream)) => {
                        let mut status = shared.lock();
                        status.connected = true;
                        status.connections += 1;
                        drop(status);
                        let ended = serve(Link::new(stream).until_stopped(&shared), &shared);
                        let mut status = shared.lock();
                        status.connected = false;
                        status.error = ended
                            .err()
                            .filter(|error| error.errno != ECONNRESET)
                            .map(|error| error.to_string());
                        if shared.last.load(Ordering::Acquire) {
                            break;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        shared.lock().error = Some(error.to_string());
                        break;
                    }
                }
            }
            shared.lock().over = true;
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|e| Error::io("clone", format!("thread {name}"), &e))?;
        Ok(Service {
            inner,
            thread: Some(thread),
        })
    }

    /// What it shares: stays when the Service is gone.
    #[must_use]
    pub fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::Release);
        self.inner.stop.raise();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was its own end; there is nobody to tell.
            let _ = thread.join();
        }
    }
}
