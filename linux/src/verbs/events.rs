//! What happens to a card and to what was made of it, told beside the completions.

use std::os::fd::BorrowedFd;

use super::device::Device;
use super::layout::{
    EVENT_CQ_ERR, EVENT_DEVICE_FATAL, EVENT_PORT_ACTIVE, EVENT_PORT_ERR, EVENT_QP_ACCESS_ERR, EVENT_QP_FATAL,
    EVENT_QP_REQ_ERR, EVENT_WQ_FATAL, IbvAsyncEvent,
};
use crate::{Error, Result};

/// Something that happened (`enum ibv_event_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A completion queue had no room: it holds nothing any more.
    CompletionQueueOverrun,
    /// A queue pair, or a receive queue, is in the error state.
    QueuePairFailed,
    /// The card failed or was taken away: nothing of it will work again.
    DeviceGone,
    /// The port of that number carries.
    PortUp(u32),
    /// The port of that number does not carry any more.
    PortDown(u32),
    /// Any other of the header's numbers.
    Other(i32),
}

impl Event {
    /// `element` is what the event is about: of a port its number, which the header's union holds in its first 32 bits.
    pub(super) fn of(number: i32, element: u32) -> Event {
        match number {
            EVENT_CQ_ERR => Event::CompletionQueueOverrun,
            EVENT_QP_FATAL | EVENT_QP_REQ_ERR | EVENT_QP_ACCESS_ERR | EVENT_WQ_FATAL => {
                Event::QueuePairFailed
            }
            EVENT_DEVICE_FATAL => Event::DeviceGone,
            EVENT_PORT_ACTIVE => Event::PortUp(element),
            EVENT_PORT_ERR => Event::PortDown(element),
            other => Event::Other(other),
        }
    }
}

impl Device {
    /// The next thing that happened; `None` when nothing has. Never waits.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let mut event = IbvAsyncEvent {
            element: std::ptr::null_mut(),
            event_type: 0,
        };
        // SAFETY: the context is open; the call fills the structure or gives an error, and does not wait, since its
        // descriptor was made not to.
        if unsafe { (self.library.ibv_get_async_event)(self.raw, &raw mut event) } != 0 {
            return None;
        }
        let told = Event::of(event.event_type, event.element as usize as u32);
        // SAFETY: the event was just given, and is acknowledged once: whoever destroys its object waits for that.
        unsafe { (self.library.ibv_ack_async_event)(&raw mut event) };
        Some(told)
    }
}

/// Has reads of a descriptor give `EAGAIN` where they would wait.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>, what: &str) -> Result<()> {
    let set = || -> rustix::io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
    };
    set().map_err(|e| Error::rustix("fcntl", format!("O_NONBLOCK {what}"), e))
}
