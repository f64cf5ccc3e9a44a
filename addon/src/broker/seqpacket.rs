//! Local sockets of messages with descriptors as JavaScript objects, and processes that cannot be mistaken.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use bifurcate_linux::process;
use bifurcate_linux::seqpacket::{self, Received};
use napi::bindgen_prelude::{ClassInstance, Function, Uint8Array};
use napi::{Env, JsValue};
use napi_derive::napi;

use crate::background;
use crate::error::{OrThrow, closed};
use crate::kernel::Netns;
use crate::port::ready::Ready;

/// An open descriptor, to be passed to another process or to be opened as what it is.
#[napi]
pub struct Descriptor {
    fd: Option<OwnedFd>,
    /// Its last close may take long, and is left to a thread.
    slow: bool,
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Descriptor {
        let slow = false;
        Descriptor { fd: Some(fd), slow }
    }
}

impl Descriptor {
    /// One whose close may take as long as somebody else likes.
    pub(crate) fn slow(fd: OwnedFd) -> Descriptor {
        let slow = true;
        Descriptor { fd: Some(fd), slow }
    }

    /// Takes it out of its object, which is closed from then on.
    pub(crate) fn take(&mut self, env: &Env) -> napi::Result<OwnedFd> {
        self.fd.take().ok_or_else(|| closed(env, "Descriptor"))
    }
}

#[napi]
impl Descriptor {
    /// Its number in this process; valid until it is closed or taken.
    #[napi(getter)]
    pub fn number(&self, env: Env) -> napi::Result<i32> {
        let fd = self.fd.as_ref().ok_or_else(|| closed(&env, "Descriptor"))?;
        Ok(fd.as_raw_fd())
    }

    /// Closes it.
    #[napi]
    pub fn close(&mut self) {
        match self.fd.take() {
            Some(fd) if self.slow => background::close(fd),
            fd => drop(fd),
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for connections.
#[napi]
pub struct Listener {
    /// Connections may bring descriptors, since the kernel does not refuse them.
    slow: bool,
    // Before the socket in drop order: it watches its descriptor.
    ready: Option<Ready>,
    socket: Option<seqpacket::Listener>,
}

/// One connection.
#[napi]
pub struct Connection {
    slow: bool,
    ready: Option<Ready>,
    socket: Option<seqpacket::Connection>,
}

/// A process, by a handle that is never another one's.
#[napi]
pub struct ProcessHandle {
    ready: Option<Ready>,
    handle: Option<seqpacket::ProcessHandle>,
}

/// Who is at the other end, as the kernel noted it.
#[napi(object, object_from_js = false)]
pub struct Peer {
    /// Its process.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// A handle of that very process; none when it has ended.
    pub process: Option<ProcessHandle>,
}

/// What `receive` found.
#[napi(object, object_from_js = false)]
pub struct Message {
    /// The message; none at the end of the connection.
    pub bytes: Option<Uint8Array>,
    /// Its descriptors.
    pub descriptors: Vec<Descriptor>,
    /// It, or its list of descriptors, was too long: the rest is lost.
    pub cut: bool,
}

/// Listens at `path`, which must not exist.
#[napi]
pub fn listen_local(env: Env, path: String) -> napi::Result<Listener> {
    let listen = || {
        let socket = seqpacket::Listener::bind(Path::new(&path), 1024)?;
        Ok((!socket.refuse_descriptors()?, socket))
    };
    let (slow, socket) = listen().or_throw(&env)?;
    Ok(Listener {
        slow,
        ready: None,
        socket: Some(socket),
    })
}

/// Connects to who listens at `path`.
#[napi]
pub fn connect_local(env: Env, path: String) -> napi::Result<Connection> {
    let socket = seqpacket::Connection::connect(Path::new(&path)).or_throw(&env)?;
    Ok(Connection {
        slow: false,
        ready: None,
        socket: Some(socket),
    })
}

/// Tells who supervises this process how it is, as "READY=1" (sd_notify(3)); false where nobody wants to know.
#[napi]
pub fn notify_supervisor(env: Env, state: String) -> napi::Result<bool> {
    process::notify_supervisor(&state).or_throw(&env)
}

/// Opens a handle of the process with that number now.
#[napi]
pub fn open_process(env: Env, pid: u32) -> napi::Result<ProcessHandle> {
    let handle = seqpacket::ProcessHandle::open(pid).or_throw(&env)?;
    Ok(ProcessHandle {
        ready: None,
        handle: Some(handle),
    })
}

#[napi]
impl Listener {
    /// The next connection that waits, or null.
    #[napi]
    pub fn accept(&self, env: Env) -> napi::Result<Option<Connection>> {
        let socket = self.socket.as_ref().ok_or_else(|| closed(&env, "Listener"))?;
        let socket = socket.accept().or_throw(&env)?;
        Ok(socket.map(|socket| Connection {
            slow: self.slow,
            ready: None,
            socket: Some(socket),
        }))
    }

    /// Calls `ready` once, when a connection waits.
    #[napi]
    pub fn on_ready(
        &mut self,
        env: Env,
        #[napi(ts_arg_type = "() => void")] ready: Function<'_, (), ()>,
    ) -> napi::Result<()> {
        let socket = self.socket.as_ref().ok_or_else(|| closed(&env, "Listener"))?;
        arm(env, &mut self.ready, socket.as_fd().as_raw_fd(), &ready, true)
    }

    /// Listens no more.
    #[napi]
    pub fn close(&mut self) {
        self.ready = None;
        self.socket = None;
    }
}

#[napi]
impl Connection {
    /// Who is at the other end.
    #[napi]
    pub fn peer(&self, env: Env) -> napi::Result<Peer> {
        let peer = self.socket(&env)?.peer().or_throw(&env)?;
        Ok(Peer {
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
            groups: peer.groups,
            process: peer.process.map(|handle| ProcessHandle {
                ready: None,
                handle: Some(handle),
            }),
        })
    }

    /// The network namespace in which the other end made its socket, at the end that accepted. Asks for CAP_NET_ADMIN
    /// over that namespace.
    #[napi]
    pub fn netns(&self, env: Env) -> napi::Result<Netns> {
        Ok(Netns::from(self.socket(&env)?.netns().or_throw(&env)?))
    }

    /// Sends one message, whole or not at all; false when the peer has not read what was sent before.
    #[napi]
    pub fn send(
        &self,
        env: Env,
        bytes: &[u8],
        #[napi(ts_arg_type = "readonly Descriptor[]")] descriptors: Vec<ClassInstance<'_, Descriptor>>,
    ) -> napi::Result<bool> {
        let fds = descriptors
            .iter()
            .map(|each| {
                each.fd
                    .as_ref()
                    .map(AsFd::as_fd)
                    .ok_or_else(|| closed(&env, "Descriptor"))
            })
            .collect::<napi::Result<Vec<_>>>()?;
        self.socket(&env)?.send(bytes, &fds).or_throw(&env)
    }

    /// Takes one message of at most `longest` bytes; null when none is there.
    #[napi]
    pub fn receive(&self, env: Env, longest: u32) -> napi::Result<Option<Message>> {
        let mut buffer = vec![0; longest as usize];
        let received = self.socket(&env)?.receive(&mut buffer).or_throw(&env)?;
        Ok(match received {
            Received::Nothing => None,
            Received::End => Some(Message {
                bytes: None,
                descriptors: Vec::new(),
                cut: false,
            }),
            Received::Message {
                length,
                descriptors,
                cut,
            } => {
                buffer.truncate(length);
                let made = if self.slow {
                    Descriptor::slow
                } else {
                    Descriptor::from
                };
                Some(Message {
                    bytes: Some(buffer.into()),
                    descriptors: descriptors.into_iter().map(made).collect(),
                    cut,
                })
            }
        })
    }

    /// Calls `ready` once, when there is something to receive. With `weak` the process may end meanwhile.
    #[napi]
    pub fn on_ready(
        &mut self,
        env: Env,
        #[napi(ts_arg_type = "() => void")] ready: Function<'_, (), ()>,
        weak: bool,
    ) -> napi::Result<()> {
        let fd = self.socket(&env)?.as_fd().as_raw_fd();
        arm(env, &mut self.ready, fd, &ready, !weak)
    }

    /// Closes it, with what has not been received of it.
    #[napi]
    pub fn close(&mut self) {
        self.ready = None;
        match self.socket.take() {
            Some(socket) if self.slow => background::close(socket),
            socket => drop(socket),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Connection {
    fn socket(&self, env: &Env) -> napi::Result<&seqpacket::Connection> {
        self.socket.as_ref().ok_or_else(|| closed(env, "Connection"))
    }
}

#[napi]
impl ProcessHandle {
    /// Calls `ended` once, when the process has ended.
    #[napi]
    pub fn on_end(
        &mut self,
        env: Env,
        #[napi(ts_arg_type = "() => void")] ended: Function<'_, (), ()>,
    ) -> napi::Result<()> {
        let handle = self
            .handle
            .as_ref()
            .ok_or_else(|| closed(&env, "ProcessHandle"))?;
        arm(env, &mut self.ready, handle.as_fd().as_raw_fd(), &ended, true)
    }

    /// Ends it (SIGKILL).
    #[napi]
    pub fn kill(&self, env: Env) -> napi::Result<()> {
        let handle = self
            .handle
            .as_ref()
            .ok_or_else(|| closed(&env, "ProcessHandle"))?;
        handle.kill().or_throw(&env)
    }

    /// Watches it no more.
    #[napi]
    pub fn close(&mut self) {
        self.ready = None;
        self.handle = None;
    }
}

fn arm(
    env: Env,
    watch: &mut Option<Ready>,
    fd: i32,
    callback: &Function<'_, (), ()>,
    keeps_alive: bool,
) -> napi::Result<()> {
    if watch.is_none() {
        let made = Ready::new(env.raw(), &[fd])?;
        if !keeps_alive {
            made.unref();
        }
        *watch = Some(made);
    }
    match watch {
        Some(watch) => watch.arm(callback.raw()),
        None => Ok(()),
    }
}
