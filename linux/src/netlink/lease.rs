//! Queue leases: a receive queue of a card lent to a virtual device (netdev family, `queue-create`, Linux 7.1).
//!
//! The specification is Documentation/netlink/specs/netdev.yaml, the kernel's side net/core/netdev-genl.c
//! netdev_nl_queue_create_doit(). An AF_XDP socket on the virtual device's queue is served by the card's, and nobody
//! else can have that queue meanwhile. The lease ends with the virtual device.

use super::message::{Attribute, Message, Received, attributes};
use super::netdev::{Family, GENLMSGHDR, family};
use super::socket::{Protocol, Socket};
use crate::{Error, Result};

const NETDEV_CMD_QUEUE_GET: u8 = 10;
const NETDEV_CMD_QUEUE_CREATE: u8 = 16;
const NETDEV_A_QUEUE_ID: u16 = 1;
const NETDEV_A_QUEUE_IFINDEX: u16 = 2;
const NETDEV_A_QUEUE_TYPE: u16 = 3;
const NETDEV_A_QUEUE_LEASE: u16 = 8;
const NETDEV_A_LEASE_IFINDEX: u16 = 1;
const NETDEV_A_LEASE_QUEUE: u16 = 2;
const NETDEV_A_LEASE_NETNS_ID: u16 = 3;
const NETDEV_QUEUE_TYPE_RX: u32 = 0;

const CREATE: &str = "netlink(NETDEV_CMD_QUEUE_CREATE)";

/// A receive queue of a card that is lent out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The card's queue.
    pub queue: u32,
    /// The virtual device that has it; a number of that device's namespace.
    pub ifindex: u32,
    /// Its queue there.
    pub leased_as: u32,
    /// The virtual device is in another namespace than the card.
    pub elsewhere: bool,
}

/// A queue of a card that is to be lent out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The card.
    pub ifindex: u32,
    /// Its receive queue.
    pub queue: u32,
    /// The identifier (`ip netns list-id`) of the card's namespace, where it is not the calling thread's. Naming one
    /// needs CAP_NET_ADMIN in the initial user namespace.
    pub netns_id: Option<u32>,
}

/// Whether the running kernel has queue leases at all.
pub fn supported() -> Result<bool> {
    let mut socket = Socket::open(Protocol::Generic)?;
    let family = family(&mut socket, "netdev")?;
    Ok(family.is_some_and(|family| knows(&family, NETDEV_CMD_QUEUE_CREATE)))
}

/// Makes a queue of the virtual device `ifindex` that stands for `source`, and gives its number there.
///
/// Errors of the kernel: EINVAL (the device is no virtual one that can create queues, or the card's driver has no
/// queue management; the kernel's words say which), ERANGE (no such queue), EBUSY (an AF_XDP socket, a lease or a
/// memory provider has it), EOPNOTSUPP (the device has queues of another card), ENODEV, ENONET; and EOPNOTSUPP on a
/// kernel without leases.
pub fn lease(ifindex: u32, source: Source) -> Result<u32> {
    let Source {
        ifindex: card,
        queue,
        netns_id,
    } = source;
    let elsewhere = netns_id.map_or_else(String::new, |id| format!(" netns-id={id}"));
    let args = format!("ifindex={ifindex} lease ifindex={card} queue={queue}{elsewhere}");
    let mut socket = Socket::open(Protocol::Generic)?;
    let Some(family) = family(&mut socket, "netdev")?.filter(|f| knows(f, NETDEV_CMD_QUEUE_CREATE)) else {
        return Err(Error::new(CREATE, args, libc::EOPNOTSUPP));
    };
    let mut id = None;
    socket.get(
        CREATE,
        &args,
        queue_create(family.id, ifindex, source),
        &mut |received| {
            let body = received.body.get(GENLMSGHDR..).unwrap_or(&[]);
            id = number(body, NETDEV_A_QUEUE_ID);
        },
    )?;
    id.ok_or_else(|| Error::new(CREATE, args, libc::EPROTO))
}

/// The receive queues of card `ifindex` that are lent out; none on a kernel without leases.
pub fn leases(ifindex: u32) -> Result<Vec<Lease>> {
    let mut socket = Socket::open(Protocol::Generic)?;
    let Some(family) = family(&mut socket, "netdev")?.filter(|f| knows(f, NETDEV_CMD_QUEUE_CREATE)) else {
        return Ok(Vec::new());
    };
    let request =
        Message::new(family.id, 0, &[NETDEV_CMD_QUEUE_GET, 1, 0, 0]).number(NETDEV_A_QUEUE_IFINDEX, ifindex);
    socket.dump("netlink(NETDEV_CMD_QUEUE_GET)", &request, read)
}

fn knows(family: &Family, command: u8) -> bool {
    family.commands.contains(&u32::from(command))
}

fn queue_create(family: u16, ifindex: u32, source: Source) -> Message {
    Message::new(family, 0, &[NETDEV_CMD_QUEUE_CREATE, 1, 0, 0])
        .number(NETDEV_A_QUEUE_IFINDEX, ifindex)
        .number(NETDEV_A_QUEUE_TYPE, NETDEV_QUEUE_TYPE_RX)
        .nested(NETDEV_A_QUEUE_LEASE, |lease| {
            let lease =
                lease
                    .number(NETDEV_A_LEASE_IFINDEX, source.ifindex)
                    .nested(NETDEV_A_LEASE_QUEUE, |queue| {
                        queue
                            .number(NETDEV_A_QUEUE_ID, source.queue)
                            .number(NETDEV_A_QUEUE_TYPE, NETDEV_QUEUE_TYPE_RX)
                    });
            match source.netns_id {
                Some(id) => lease.number(NETDEV_A_LEASE_NETNS_ID, id),
                None => lease,
            }
        })
}

/// Reads a NETDEV_CMD_QUEUE_GET's answer; none for a queue that is not lent out.
pub(super) fn read(received: &Received<'_>) -> Option<Lease> {
    let body = received.body.get(GENLMSGHDR..)?;
    if number(body, NETDEV_A_QUEUE_TYPE)? != NETDEV_QUEUE_TYPE_RX {
        return None;
    }
    let lease = find(body, NETDEV_A_QUEUE_LEASE)?;
    let there = find(lease.value, NETDEV_A_LEASE_QUEUE)?;
    Some(Lease {
        queue: number(body, NETDEV_A_QUEUE_ID)?,
        ifindex: number(lease.value, NETDEV_A_LEASE_IFINDEX)?,
        leased_as: number(there.value, NETDEV_A_QUEUE_ID)?,
        elsewhere: find(lease.value, NETDEV_A_LEASE_NETNS_ID).is_some(),
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|attribute| attribute.kind == kind)
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind)?.u32()
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::netlink::message::{flag::ACK, messages};

    const SOURCE: Source = Source {
        ifindex: 0x0102,
        queue: 3,
        netns_id: None,
    };

    #[test]
    fn a_lease_is_asked_for_as_the_header_lays_it_out() {
        #[rustfmt::skip]
        let expected = [
            68, 0, 0, 0, 33, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // to the family, REQUEST|ACK
            16, 1, 0, 0,                                      // NETDEV_CMD_QUEUE_CREATE, version 1
            8, 0, 2, 0, 5, 0, 0, 0,                           // NETDEV_A_QUEUE_IFINDEX
            8, 0, 3, 0, 0, 0, 0, 0,                           // NETDEV_A_QUEUE_TYPE: rx
            32, 0, 8, 0x80,                                  // NETDEV_A_QUEUE_LEASE
            8, 0, 1, 0, 2, 1, 0, 0,                           // NETDEV_A_LEASE_IFINDEX
            20, 0, 2, 0x80,                                  // NETDEV_A_LEASE_QUEUE
            8, 0, 1, 0, 3, 0, 0, 0,                           // NETDEV_A_QUEUE_ID
            8, 0, 3, 0, 0, 0, 0, 0,                           // NETDEV_A_QUEUE_TYPE: rx
        ];
        assert_eq!(queue_create(33, 5, SOURCE).finish(7, ACK), expected);
        let elsewhere = queue_create(
            33,
            5,
            Source {
                netns_id: Some(0),
                ..SOURCE
            },
        )
        .finish(7, ACK);
        assert_eq!(elsewhere.len(), expected.len() + 8);
        assert_eq!(elsewhere[68..], [8, 0, 3, 0, 0, 0, 0, 0]); // NETDEV_A_LEASE_NETNS_ID
    }

    #[test]
    fn a_queue_that_is_lent_out_and_one_that_is_not() {
        let answer = |kind, lease: Option<bool>| {
            let message = Message::new(33, 0, &[NETDEV_CMD_QUEUE_GET, 1, 0, 0])
                .number(NETDEV_A_QUEUE_ID, 3)
                .number(NETDEV_A_QUEUE_TYPE, kind)
                .number(NETDEV_A_QUEUE_IFINDEX, 2);
            let message = match lease {
                None => message,
                Some(elsewhere) => message.nested(NETDEV_A_QUEUE_LEASE, |lease| {
                    let lease = lease
                        .nested(NETDEV_A_LEASE_QUEUE, |queue| queue.number(NETDEV_A_QUEUE_ID, 1))
                        .number(NETDEV_A_LEASE_IFINDEX, 9);
                    if elsewhere {
                        lease.number(NETDEV_A_LEASE_NETNS_ID, 4)
                    } else {
                        lease
                    }
                }),
            };
            let bytes = message.finish(1, 0);
            read(&messages(&bytes).next().unwrap())
        };
        let lease = |elsewhere| Lease {
            queue: 3,
            ifindex: 9,
            leased_as: 1,
            elsewhere,
        };
        assert_eq!(answer(0, Some(false)), Some(lease(false)));
        assert_eq!(answer(0, Some(true)), Some(lease(true)));
        assert_eq!(answer(0, None), None);
        assert_eq!(answer(1, Some(false)), None);
    }
}
