//! Link events: what happens to the interfaces of a namespace, as it happens.

use super::link::{self, Link, RTM_DELLINK, RTM_NEWLINK};
use super::message::{Received, messages};
use super::socket::{Protocol, Socket};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

/// Something that happened to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The interface's number.
    pub index: u32,
    /// Its name, after the event.
    pub name: String,
    /// What happened.
    pub what: What,
}

/// What happened to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is new here.
    Added,
    /// It was set up and has carrier.
    Up,
    /// It was set down or lost carrier.
    Down,
    /// It is gone.
    Deleted,
    /// It went to another namespace.
    Moved,
    /// It has a new name; this is the old one.
    Renamed(String),
    /// It has a new MTU, in bytes.
    Mtu(u32),
    /// It has a new link-layer address.
    Address,
}

/// A subscription to the link events of one namespace.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    known: Known,
    buffer: Vec<u8>,
}

/// What is remembered of each interface, to tell what an event changed.
pub(super) type Known = BTreeMap<u32, Remembered>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    name: String,
    mtu: u32,
    mac: Vec<u8>,
    running: bool,
}

/// RTNLGRP_LINK.
const GROUP: u32 = 1;

impl Watch {
    /// Subscribes in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(Protocol::Route)?;
        socket.subscribe(GROUP)?;
        // After the subscription, so that nothing falls between.
        let known = link::links()?
            .iter()
            .map(|link| (link.index, remembered(link)))
            .collect();
        Ok(Self {
            socket,
            known,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// The events that are there; does not wait. Wait for the descriptor to be readable instead.
    /// Must be called with the thread in the namespace of the subscription, which is asked for all its
    /// links when events were lost.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            match self.socket.receive_now(&mut self.buffer) {
                Ok(Some(length)) => {
                    for received in messages(&self.buffer[..length]) {
                        apply(&mut self.known, &received, &mut events);
                    }
                }
                Ok(None) => return Ok(events),
                Err(libc::ENOBUFS | libc::EMSGSIZE) => {
                    catch_up(&mut self.known, &link::links()?, &mut events)
                }
                Err(errno) => return Err(Error::new("recv(AF_NETLINK)", "link events", errno)),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn remembered(link: &Link) -> Remembered {
    Remembered {
        name: link.name.clone(),
        mtu: link.mtu,
        mac: link.mac.clone(),
        running: link.up && link.carrier,
    }
}

pub(super) fn apply(known: &mut Known, received: &Received<'_>, events: &mut Vec<Event>) {
    // Bridges send messages of their own family about their ports, deletions among them.
    if received.body.first() != Some(&(libc::AF_UNSPEC as u8)) {
        return;
    }
    let Some(link) = link::read(received) else { return };
    match received.kind {
        RTM_NEWLINK => compare(known, &link, events),
        RTM_DELLINK => {
            let what = if link::moved_away(received) {
                What::Moved
            } else {
                What::Deleted
            };
            if known.remove(&link.index).is_some() {
                events.push(Event {
                    index: link.index,
                    name: link.name,
                    what,
                });
            }
        }
        _ => {}
    }
}

fn compare(known: &mut Known, link: &Link, events: &mut Vec<Event>) {
    let now = remembered(link);
    let before = known.insert(link.index, now.clone());
    let mut push = |what| {
        events.push(Event {
            index: link.index,
            name: link.name.clone(),
            what,
        })
    };
    let Some(before) = before else {
        push(What::Added);
        if now.running {
            push(What::Up);
        }
        return;
    };
    if before.name != now.name {
        push(What::Renamed(before.name));
    }
    if before.mtu != now.mtu {
        push(What::Mtu(now.mtu));
    }
    if before.mac != now.mac {
        push(What::Address);
    }
    if before.running != now.running {
        push(if now.running { What::Up } else { What::Down });
    }
}

/// Tells what must have happened, from what there is now.
fn catch_up(known: &mut Known, links: &[Link], events: &mut Vec<Event>) {
    for link in links {
        compare(known, link, events);
    }
    known.retain(|index, remembered| {
        let there = links.iter().any(|link| link.index == *index);
        if !there {
            events.push(Event {
                index: *index,
                name: remembered.name.clone(),
                what: What::Deleted,
            });
        }
        there
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, mtu: u32, running: bool) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mtu,
            up: running,
            carrier: running,
            ..Link::default()
        }
    }

    fn what(known: &mut Known, link: &Link) -> Vec<What> {
        let mut events = Vec::new();
        compare(known, link, &mut events);
        events.into_iter().map(|event| event.what).collect()
    }

    #[test]
    fn an_event_says_what_changed_and_nothing_else() {
        let mut known = Known::new();
        assert_eq!(what(&mut known, &link(2, "a", 1500, false)), [What::Added]);
        assert_eq!(what(&mut known, &link(2, "a", 1500, true)), [What::Up]);
        assert_eq!(what(&mut known, &link(2, "a", 1500, true)), []);
        assert_eq!(
            what(&mut known, &link(2, "b", 9000, false)),
            [What::Renamed("a".to_owned()), What::Mtu(9000), What::Down]
        );
        let other = Link {
            mac: vec![2, 0, 0, 0, 0, 7],
            ..link(2, "b", 9000, false)
        };
        assert_eq!(what(&mut known, &other), [What::Address]);
    }

    #[test]
    fn lost_events_are_told_from_what_is_left() {
        let mut known = Known::from([
            (2, remembered(&link(2, "a", 1500, true))),
            (3, remembered(&link(3, "b", 1500, true))),
        ]);
        let mut events = Vec::new();
        catch_up(&mut known, &[link(3, "b", 1400, true)], &mut events);
        let seen: Vec<_> = events
            .into_iter()
            .map(|event| (event.index, event.what))
            .collect();
        assert_eq!(seen, [(3, What::Mtu(1400)), (2, What::Deleted)]);
        assert_eq!(known.len(), 1);
    }
}
