//! Link events on the event loop: a thread of its own sleeps on the netlink socket and calls back.

use super::netns::Netns;
use crate::error::OrThrow;
use bifurcate_linux::event::{EventFd, Interest, Ready, wait};
use bifurcate_linux::netlink::watch::{Event, Watch, What};
use bifurcate_linux::{Error, netns};
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Something that happened to an interface.
#[napi(object, use_nullable = true, object_from_js = false)]
pub struct LinkEvent {
    /// What happened.
    #[napi(
        js_name = "type",
        ts_type = "\"added\" | \"up\" | \"down\" | \"deleted\" | \"moved\" | \"renamed\" | \"mtu\" | \"address\" | \"failed\""
    )]
    pub kind: &'static str,
    /// The interface's number.
    pub ifindex: u32,
    /// Its name, after the event; empty of "failed".
    pub name: String,
    /// Of "renamed" the name before.
    pub old_name: Option<String>,
    /// Of "mtu" the new MTU, in bytes.
    pub mtu: Option<u32>,
    /// Of "failed" why no more events will come.
    pub reason: Option<String>,
}

impl From<Event> for LinkEvent {
    fn from(event: Event) -> Self {
        let (kind, old_name, mtu) = match event.what {
            What::Added => ("added", None, None),
            What::Up => ("up", None, None),
            What::Down => ("down", None, None),
            What::Deleted => ("deleted", None, None),
            What::Moved => ("moved", None, None),
            What::Renamed(before) => ("renamed", Some(before), None),
            What::Mtu(mtu) => ("mtu", None, Some(mtu)),
            What::Address => ("address", None, None),
        };
        Self {
            kind,
            ifindex: event.index,
            name: event.name,
            old_name,
            mtu,
            reason: None,
        }
    }
}

/// A subscription to the link events of a namespace. It does not keep the process alive.
#[napi]
pub struct LinkWatch(Option<Arc<EventFd>>);

/// Calls JavaScript from the watching thread, and does not keep the event loop alive for it.
type Told = ThreadsafeFunction<LinkEvent, (), LinkEvent, Status, false, true>;

#[napi]
impl Netns {
    /// Calls `told` for everything that happens to an interface from now on.
    #[napi]
    pub fn watch_links(
        &self,
        env: Env,
        #[napi(ts_arg_type = "(event: LinkEvent) => void")] told: Function<'_, LinkEvent, ()>,
    ) -> napi::Result<LinkWatch> {
        let netns = self.netns(&env)?;
        let mut watch = netns.within(Watch::open).or_throw(&env)?;
        let stop = Arc::new(EventFd::new().or_throw(&env)?);
        let told: Told = told
            .build_threadsafe_function()
            .callee_handled::<false>()
            .weak::<true>()
            .build()?;
        let stopped = Arc::clone(&stop);
        let spawned = std::thread::Builder::new()
            .name("bf-links".to_owned())
            .spawn(move || follow(&netns, &mut watch, &stopped, &told));
        spawned
            .map_err(|e| Error::io("pthread_create", "bf-links", &e))
            .or_throw(&env)?;
        Ok(LinkWatch(Some(stop)))
    }
}

#[napi]
impl LinkWatch {
    /// Ends the subscription.
    #[napi]
    pub fn close(&mut self) {
        self.stop();
    }
}

impl LinkWatch {
    fn stop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop.raise();
        }
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sleeps until there are events or the end, and passes the events on.
fn follow(netns: &netns::Netns, watch: &mut Watch, stop: &EventFd, told: &Told) {
    let outcome = netns.within(|| {
        loop {
            let mut ready = [Ready::default(); 2];
            wait(
                &[(watch.as_fd(), Interest::Read), (stop.as_fd(), Interest::Read)],
                &mut ready,
                None,
            )?;
            if ready[1].any() {
                return Ok(());
            }
            for event in watch.read()? {
                if told.call(event.into(), ThreadsafeFunctionCallMode::NonBlocking) == Status::Closing {
                    return Ok(());
                }
            }
        }
    });
    if let Err(error) = outcome {
        let event = LinkEvent {
            kind: "failed",
            ifindex: 0,
            name: String::new(),
            old_name: None,
            mtu: None,
            reason: Some(error.to_string()),
        };
        told.call(event, ThreadsafeFunctionCallMode::NonBlocking);
    }
}
