//! Opening: the card, the pool as one memory region, a queue pair a queue; and who is at the other end of datagrams.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bifurcate_linux::verbs::{
    AddressHandle, Capacity, CompletionChannel, CompletionQueue, Device, Domain, Flow, Gid, GidType,
    KEY_BYTES, Kind, MemoryRegion, QueuePair, Spread, Target, WorkQueue, hashed,
};
use bifurcate_linux::{Error, Result, interface};

use super::card::{CardPair, Rules};
use super::pair::Peer;
use super::queue::{ETHERNET_HEADER, Queue, Shape};
use super::rx::Rx;
use super::status::Status;
use super::tx::Tx;
use crate::device::pmd::RSS_KEY;
use crate::device::{Mtu, Port, QueuePair as Halves};
use crate::frame::{Cache, HEADROOM, Umem};

const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENOTCONN: i32 = 107;

/// Most queues of a port.
const QUEUES_MAX: u32 = 16;

/// What the queue pairs carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Ethernet frames, brought by flow rules of the card: each a `struct ibv_flow_attr` with its specifications. Several
    /// queues share them by the hash of addresses and ports.
    RawPackets {
        /// The rules.
        rules: Vec<Vec<u8>>,
    },
    /// One frame a datagram, to and from one other port.
    Datagrams {
        /// Which of the port's addresses; `None`: one for RoCE version 2, of IPv4 where there is one.
        gid: Option<u32>,
        /// The key of our queue pairs.
        qkey: u32,
    },
}

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The RDMA device, e.g. `mlx5_0`.
    pub device: String,
    /// Its port, from 1.
    pub port: u8,
    /// Number of queue pairs.
    pub queues: u32,
    /// Work requests of each side of a queue pair, a power of two.
    pub ring_size: u32,
    /// What they carry.
    pub carries: Carries,
}

/// What the other end has to know of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Our address.
    pub gid: [u8; 16],
    /// The numbers of our queue pairs.
    pub queue_pairs: Vec<u32>,
    /// Their key.
    pub qkey: u32,
    /// Bytes of the largest datagram that we take.
    pub largest: u32,
}

/// The same of the other end.
pub type Remote = Local;

/// An open port beside its queues: who is at the other end, and how the card is. It keeps nothing open.
#[derive(Debug)]
pub struct Control {
    status: Arc<Status>,
    domain: Weak<Domain>,
    queues: Vec<Weak<Queue>>,
    port: u8,
    /// Our address; none with raw packets.
    gid: Option<Gid>,
    local: Option<Local>,
    mtu: u32,
    /// Whom to send to once it says that it takes our datagrams, and the largest of them.
    pending: Mutex<(Vec<Peer>, u32)>,
}

/// What [`open`] gives.
pub struct Opened {
    /// The port.
    pub port: Port,
    /// What is asked and told of it beside its queues.
    pub control: Arc<Control>,
}

impl Control {
    /// How the card is. Hears what has happened to it: a loop that sleeps does not.
    #[must_use]
    pub fn status(&self) -> &Status {
        // Any queue hears of the whole card.
        if let Some(queue) = self.queues().next() {
            queue.hear();
        }
        &self.status
    }

    /// What the other end has to know; `None` of a port of raw packets.
    #[must_use]
    pub fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }

    /// Bytes of the largest frame that the port's link takes.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Datagrams of that end are taken from now on, and of no other; [`Control::begin`] sends to it. May take some seconds:
    /// the kernel asks the neighbours for the way.
    ///
    /// # Errors
    /// `EINVAL` for another number of queue pairs than ours, or for an end that takes no whole Ethernet header;
    /// `ENOTCONN` when the port is closed; what finding the way reports.
    pub fn connect(&self, remote: &Remote) -> Result<()> {
        let args = || format!("peer={remote:?}");
        if remote.queue_pairs.len() != self.queues.len() || remote.largest < ETHERNET_HEADER {
            return Err(Error::new("connect", args(), EINVAL));
        }
        let (Some(domain), Some(gid)) = (self.domain.upgrade(), &self.gid) else {
            return Err(Error::new("connect", args(), ENOTCONN));
        };
        let way = Arc::new(AddressHandle::new(&domain, self.port, gid, remote.gid)?);
        for (queue, &queue_pair) in self.queues().zip(&remote.queue_pairs) {
            queue.expect(queue_pair);
        }
        let peers = remote.queue_pairs.iter().map(|&queue_pair| Peer {
            way: Some(Arc::clone(&way)),
            queue_pair,
            qkey: remote.qkey,
        });
        *self.pending() = (peers.collect(), self.mtu.min(remote.largest));
        Ok(())
    }

    /// What is sent goes to the end that was named last: it takes our datagrams by now.
    pub fn begin(&self) {
        let (peers, largest) = std::mem::take(&mut *self.pending());
        for (queue, peer) in self.queues().zip(peers) {
            queue.meet(Some(peer), largest);
        }
    }

    /// Nobody is at the other end any more.
    pub fn disconnect(&self) {
        *self.pending() = (Vec::new(), 0);
        for queue in self.queues() {
            queue.expect(0);
            queue.meet(None, self.mtu);
        }
    }

    /// The queues; none when the port is closed, which closes all of them.
    fn queues(&self) -> impl Iterator<Item = Arc<Queue>> {
        self.queues.iter().filter_map(Weak::upgrade)
    }

    fn pending(&self) -> MutexGuard<'_, (Vec<Peer>, u32)> {
        // Only ever replaced whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        let invalid = |why: String| {
            Err(Error::new(
                "open(verbs)",
                format!("device={} {why}", self.device),
                EINVAL,
            ))
        };
        if self.queues == 0 || self.queues > QUEUES_MAX {
            return invalid(format!("queues={}: 1 to {QUEUES_MAX}", self.queues));
        }
        if !self.ring_size.is_power_of_two() || !(16..=16_384).contains(&self.ring_size) {
            return invalid(format!(
                "ring_size={}: a power of two from 16 to 16384",
                self.ring_size
            ));
        }
        Ok(())
    }
}

/// Opens queue pairs of an RDMA device over `umem`, which becomes one memory region.
///
/// # Errors
/// `ENOENT` without rdma-core; `ENODEV` without that device; `EOPNOTSUPP` when it has no queue pairs of the kind, no
/// flow rules, or no address; `EPERM`, `EACCES` without the rights; `ENOMEM` when locked memory is limited; `EINVAL`
/// for a configuration that cannot be.
pub fn open(config: &Config, umem: &Arc<Umem>) -> Result<Opened> {
    config.check()?;
    let device = Device::open(&config.device)?;
    let facts = device.port(config.port)?;
    let gids = device.gids(config.port)?;
    let refuse = |why: &str| {
        let args = format!("device={} port={} {why}", config.device, config.port);
        Err(Error::new("open(verbs)", args, EOPNOTSUPP))
    };
    if !facts.ethernet {
        return refuse("link=InfiniBand: only RDMA over Ethernet is supported");
    }
    let room = umem.frame_size() - HEADROOM;
    let (kind, gid, largest) = match &config.carries {
        Carries::RawPackets { .. } => {
            let interface = gids.iter().map(|gid| gid.ifindex).find(|&index| index != 0);
            let mtu = interface.map_or(Ok(1500), interface::mtu)?;
            (Kind::RawPacket, None, room.min(mtu + ETHERNET_HEADER))
        }
        Carries::Datagrams { gid, qkey } => {
            let Some(gid) = choose(&gids, *gid) else {
                return refuse("gid=none: the device's interface has no address, or is in another namespace");
            };
            (Kind::Datagram { qkey: *qkey }, Some(gid), room.min(facts.mtu))
        }
    };
    let domain = Domain::new(&device)?;
    let region = Arc::new(MemoryRegion::register(&domain, umem.mapping(), umem.len())?);
    let status = Arc::new(Status::of(config.port));
    if !facts.active {
        status.set(crate::device::State::Down);
    }
    let mut cache = Cache::new(umem);
    let rules = Rules::default();
    let mut queues = Vec::new();
    let mut targets = Vec::new();
    for _ in 0..config.queues {
        let pair = card_pair(config, &domain, &region, kind, &rules)?;
        targets.push((Arc::clone(&pair.queue_pair), pair.work_queue.clone()));
        let shape = Shape {
            ring_size: config.ring_size,
            datagrams: matches!(kind, Kind::Datagram { .. }),
            lkey: region.lkey(),
        };
        let mtu = Mtu::new(largest - ETHERNET_HEADER);
        let number = pair.queue_pair.number();
        let queue = Arc::new(Queue::new(Box::new(pair), shape, mtu, &status, umem));
        queue.start(&mut cache)?;
        queues.push((number, queue));
    }
    if let Carries::RawPackets { rules: wanted } = &config.carries {
        // The queues receive by now: what comes with the first rule finds frames.
        let made = flows(wanted, config.port, &domain, &targets)?;
        let _ = rules.set(made);
    }
    let local = match (&config.carries, &gid) {
        (Carries::Datagrams { qkey, .. }, Some(gid)) => Some(Local {
            gid: gid.address,
            queue_pairs: queues.iter().map(|(number, _)| *number).collect(),
            qkey: *qkey,
            largest,
        }),
        _ => None,
    };
    let control = Arc::new(Control {
        status,
        domain: Arc::downgrade(&domain),
        queues: queues.iter().map(|(_, queue)| Arc::downgrade(queue)).collect(),
        port: config.port,
        gid,
        local,
        mtu: largest,
        pending: Mutex::default(),
    });
    let halves = (0..).zip(&queues).map(|(index, (_, queue))| Halves {
        index,
        rx: Box::new(Rx::new(queue)),
        tx: Box::new(Tx::new(queue)),
    });
    let port = Port {
        name: config.device.clone(),
        queues: halves.collect(),
        umem: Arc::clone(umem),
    };
    Ok(Opened { port, control })
}

/// A queue pair with completion queues of its own, in RESET; with several queues of raw packets, and a receive queue.
fn card_pair(
    config: &Config,
    domain: &Arc<Domain>,
    region: &Arc<MemoryRegion>,
    kind: Kind,
    rules: &Rules,
) -> Result<CardPair> {
    let device = domain.device();
    let entries = config.ring_size;
    let channel = CompletionChannel::new(device)?;
    let received = Arc::new(CompletionQueue::new(device, entries, Some(channel))?);
    let sent = Arc::new(CompletionQueue::new(device, entries, None)?);
    let spreads = kind == Kind::RawPacket && config.queues > 1;
    let capacity = Capacity {
        sends: entries,
        receives: if spreads { 0 } else { entries },
    };
    let queue_pair = QueuePair::new(domain, config.port, kind, &sent, &received, capacity)?;
    let work_queue = spreads.then(|| WorkQueue::new(domain, &received, entries).map(Arc::new));
    Ok(CardPair {
        _rules: Arc::clone(rules),
        queue_pair: Arc::new(queue_pair),
        work_queue: work_queue.transpose()?,
        _region: Arc::clone(region),
    })
}

/// The rules, each to the one queue, or to all of them by the hash of what the rule says of its packets.
fn flows(
    rules: &[Vec<u8>],
    port: u8,
    domain: &Arc<Domain>,
    queues: &[(Arc<QueuePair>, Option<Arc<WorkQueue>>)],
) -> Result<Vec<Flow>> {
    let work: Vec<_> = queues.iter().filter_map(|(_, work)| work.clone()).collect();
    let mut key = [0; KEY_BYTES];
    for (bytes, word) in key.chunks_mut(4).zip(RSS_KEY) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut spreads = BTreeMap::new();
    let mut made = Vec::new();
    for rule in rules {
        let target = if let ([], [(pair, _), ..]) = (work.as_slice(), queues) {
            Target::QueuePair(Arc::clone(pair))
        } else {
            let by = hashed(rule);
            Target::Spread(match spreads.entry(by) {
                Entry::Occupied(made) => Arc::clone(made.get()),
                Entry::Vacant(place) => {
                    Arc::clone(place.insert(Arc::new(Spread::new(domain, &work, by, &key)?)))
                }
            })
        };
        made.push(Flow::create(&target, port, rule)?);
    }
    Ok(made)
}

/// The address at that place of the table; or one that datagrams reach over any network, an IPv4 one first.
fn choose(gids: &[Gid], wanted: Option<u32>) -> Option<Gid> {
    if let Some(index) = wanted {
        return gids.iter().copied().find(|gid| gid.index == index);
    }
    let rank = |gid: &Gid| {
        let version4 = gid
            .address
            .starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        let link_local = gid.address[0] == 0xfe && gid.address[1] & 0xc0 == 0x80;
        match gid.kind {
            GidType::RoceV2 if version4 => 0,
            GidType::RoceV2 if !link_local => 1,
            GidType::RoceV2 => 2,
            GidType::RoceV1 => 3,
            GidType::InfiniBand => 4,
        }
    };
    gids.iter().copied().min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(index: u32, kind: GidType, address: &str) -> Gid {
        let address = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
        Gid {
            index,
            address,
            kind,
            ifindex: 1,
        }
    }

    #[test]
    fn an_address_of_ipv4_for_roce_2_is_the_first_choice() {
        let all = [
            gid(0, GidType::RoceV1, "fe80::1"),
            gid(1, GidType::RoceV2, "fe80::1"),
            gid(2, GidType::RoceV2, "2001:db8::1"),
            gid(3, GidType::RoceV1, "::ffff:192.0.2.1"),
            gid(4, GidType::RoceV2, "::ffff:192.0.2.1"),
        ];
        assert_eq!(choose(&all, None).unwrap().index, 4);
        assert_eq!(choose(&all[..4], None).unwrap().index, 2);
        assert_eq!(choose(&all[..2], None).unwrap().index, 1);
        assert_eq!(choose(&all, Some(0)).unwrap().index, 0);
        assert_eq!(choose(&all, Some(9)), None);
        assert_eq!(choose(&[], None), None);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_opened() {
        let good = Config {
            device: "none0".to_owned(),
            port: 1,
            queues: 1,
            ring_size: 256,
            carries: Carries::Datagrams { gid: None, qkey: 1 },
        };
        assert!(good.check().is_ok());
        for bad in [
            Config {
                queues: 0,
                ..good.clone()
            },
            Config {
                queues: 17,
                ..good.clone()
            },
            Config {
                ring_size: 100,
                ..good.clone()
            },
            Config {
                ring_size: 8,
                ..good.clone()
            },
        ] {
            assert_eq!(bad.check().unwrap_err().code(), "EINVAL", "{bad:?}");
        }
    }
}
