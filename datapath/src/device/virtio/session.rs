//! The front end's part of a connection: features agreed on, memory and rings handed over.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bifurcate_linux::{Error, Result};

use crate::ring::virtio::feature;
use crate::vhost_user::message::{Addresses, MemoryRegion};
use crate::vhost_user::{Link, Message, PROTOCOL_FEATURES, protocol, request};

use super::open::{POOL_AT, RINGS_AT, Shared};
use super::queue::AnyRing;

/// How long the device may take for all its answers: a busy machine may keep its process from running for seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(18);

const EPROTO: i32 = 71;
const EOPNOTSUPP: i32 = 95;
const ETIMEDOUT: i32 = 110;

/// What the driver can do.
pub(super) const FEATURES: u64 = feature::MRG_RXBUF
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::VERSION_1
    | feature::RING_PACKED
    | feature::IN_ORDER
    | PROTOCOL_FEATURES;

/// Agrees with the device and hands everything over; gives the features.
pub(super) fn begin(link: &mut Link, shared: &Shared) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    let ask = |link: &mut Link, what| {
        let reply = link.ask(&Message::new(what, Vec::new()), &[], left(deadline))?;
        reply
            .number()
            .map_err(|wrong| Error::new("vhost-user", wrong.to_string(), EPROTO))
    };
    let offered = ask(link, request::GET_FEATURES)?;
    if offered & feature::VERSION_1 == 0 {
        let what = "the device does not offer VIRTIO_F_VERSION_1";
        return Err(Error::new("vhost-user", what, EOPNOTSUPP));
    }
    let missing = shared.required() & !offered;
    if missing != 0 {
        let what = format!(
            "the device does not offer {}, as was asked for",
            feature::list(missing)
        );
        return Err(Error::new("vhost-user", what, EOPNOTSUPP));
    }
    let mut features = offered & shared.wanted();
    let pairs = shared.pairs();
    let mut can_acknowledge = false;
    if features & PROTOCOL_FEATURES != 0 {
        let theirs = ask(link, request::GET_PROTOCOL_FEATURES)?;
        let ours = theirs & (protocol::MQ | protocol::REPLY_ACK);
        link.send(&Message::of_number(request::SET_PROTOCOL_FEATURES, ours), &[])?;
        can_acknowledge = ours & protocol::REPLY_ACK != 0;
        let most = if ours & protocol::MQ != 0 {
            ask(link, request::GET_QUEUE_NUM)?
        } else {
            1
        };
        if (pairs as u64) > most {
            let what = format!("the device has {most} queues, {pairs} were asked for");
            return Err(Error::new("vhost-user", what, EOPNOTSUPP));
        }
    } else if pairs > 1 {
        let what =
            format!("{pairs} queues were asked for; the device has no protocol features, so one queue");
        return Err(Error::new("vhost-user", what, EOPNOTSUPP));
    }
    if pairs > 1 {
        // Section 5.1.2: without it there is one pair.
        if offered & feature::MQ == 0 {
            let what = format!("{pairs} queues were asked for; the device does not offer VIRTIO_NET_F_MQ");
            return Err(Error::new("vhost-user", what, EOPNOTSUPP));
        }
        features |= feature::MQ;
    }
    link.send(&Message::new(request::SET_OWNER, Vec::new()), &[])?;
    link.send(&Message::of_number(request::SET_FEATURES, features), &[])?;
    hand_over_memory(link, shared, can_acknowledge, deadline)?;
    for index in 0..2 * pairs {
        hand_over_ring(link, shared, index, features)?;
        // It may read, and so slowly that each message just finds room.
        if left(deadline).is_zero() {
            let what = format!("the device has not taken its rings within {PATIENCE:?}");
            return Err(Error::new("vhost-user", what, ETIMEDOUT));
        }
    }
    if features & PROTOCOL_FEATURES != 0 {
        for index in 0..2 * pairs {
            let enable = Message::of_state(request::SET_VRING_ENABLE, index as u32, 1);
            link.send(&enable, &[])?;
        }
    }
    // Most requests have no reply. One that has is answered after them: the device then has the rings.
    ask(link, request::GET_FEATURES)?;
    Ok(features)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn hand_over_memory(
    link: &mut Link,
    shared: &Shared,
    can_acknowledge: bool,
    deadline: Instant,
) -> Result<()> {
    let pool = shared.umem();
    let (rings, rings_len) = shared.rings_file();
    let region = |at, size| MemoryRegion {
        guest: at,
        size,
        user: at,
        offset: 0,
    };
    let table = Message::of_memory(&[
        region(POOL_AT, pool.len() as u64),
        region(RINGS_AT, rings_len as u64),
    ]);
    let fds = [pool.file().as_fd(), rings];
    if !can_acknowledge {
        return link.send(&table, &fds);
    }
    let reply = link.ask(&table.asking(), &fds, left(deadline))?;
    match reply.number() {
        Ok(0) => Ok(()),
        answer => {
            let what = format!("the device refused the memory table: {answer:?}");
            Err(Error::new("vhost-user", what, EPROTO))
        }
    }
}

fn hand_over_ring(link: &Link, shared: &Shared, index: usize, features: u64) -> Result<()> {
    let packed = features & feature::RING_PACKED != 0;
    let (queue, events) = (&shared.queues[index], &shared.events[index]);
    let (places, at) = shared.places(index, packed);
    queue.renew(
        || AnyRing::new(places, features),
        features,
        shared.umem(),
        index.is_multiple_of(2),
    );
    let number = index as u32;
    // Where a fresh ring begins: slot 0, and for the packed layout wrap counters of 1.
    let base = if packed { 0x8000_8000 } else { 0 };
    link.send(
        &Message::of_state(request::SET_VRING_NUM, number, queue.size.into()),
        &[],
    )?;
    link.send(&Message::of_state(request::SET_VRING_BASE, number, base), &[])?;
    link.send(
        &Message::of_addresses(&Addresses {
            index: number,
            flags: 0,
            desc: at.desc,
            used: at.device,
            avail: at.driver,
            log: 0,
        }),
        &[],
    )?;
    let event = |what| Message::of_number(what, u64::from(number));
    link.send(&event(request::SET_VRING_CALL), &[events.call.as_fd()])?;
    link.send(&event(request::SET_VRING_KICK), &[events.kick.as_fd()])
}
