//! What JavaScript asks of a card that our own driver has: its link, its counters, its filters.

use std::sync::Arc;

use bifurcate_datapath::device::pmd::{Filter, Presence, Quiet};
use bifurcate_datapath::engine::PassPath;
use bifurcate_datapath::engine::pass::ExceptionPath;
use bifurcate_linux::{Error, Result};
use napi::Env;
use napi_derive::napi;

use super::native_port::NativePort;
use crate::error::OrThrow;

/// The state of a card's link.
#[napi(object)]
pub struct CardLink {
    /// There is one.
    pub up: bool,
    /// Megabits a second; 0 when the card does not say.
    pub speed: u32,
    /// Both directions at once.
    pub full_duplex: bool,
}

/// A statistics register of a card, added up since it was opened.
#[napi(object)]
pub struct CardStatistic {
    /// What the datasheet calls it. Registers that there are for each queue come in the queues' order.
    pub name: String,
    /// What it counts.
    pub meaning: String,
    /// How much.
    pub value: i64,
}

/// A card that our own driver has.
#[napi(object)]
pub struct CardFacts {
    /// The driver: "igb", "igbvf", "e1000e" or "virtio".
    pub driver: String,
    /// Its address.
    pub mac: String,
    /// Its link.
    pub link: CardLink,
    /// What it has counted.
    pub statistics: Vec<CardStatistic>,
    /// "here", "down" or "gone".
    pub presence: String,
}

/// What a card can steer to a queue by itself: an EtherType, or a five-tuple of IPv4.
#[napi(object)]
pub struct CardFilter {
    /// Frames of this EtherType.
    pub ether_type: Option<u32>,
    /// Or packets of this protocol: TCP 6, UDP 17.
    pub protocol: Option<u32>,
    /// From this address.
    pub source: Option<String>,
    /// To this address.
    pub destination: Option<String>,
    /// From this port.
    pub source_port: Option<u32>,
    /// To this port.
    pub destination_port: Option<u32>,
    /// The queue that they go to.
    pub queue: u32,
}

#[napi]
impl NativePort {
    /// The card behind the port; null for devices that are none of our own drivers', and after the close.
    #[napi]
    pub fn card(&self) -> Option<CardFacts> {
        let card = self.quiet()?;
        let link = card.nic.link();
        Some(CardFacts {
            driver: card.nic.driver().to_owned(),
            mac: card.nic.mac().map(|byte| format!("{byte:02x}")).join(":"),
            link: CardLink {
                up: link.up,
                speed: link.speed,
                full_duplex: link.full_duplex,
            },
            statistics: card
                .nic
                .statistics()
                .into_iter()
                .map(|statistic| CardStatistic {
                    name: statistic.name.to_owned(),
                    meaning: statistic.meaning.to_owned(),
                    value: i64::try_from(statistic.value).unwrap_or(i64::MAX),
                })
                .collect(),
            presence: match card.presence() {
                Presence::Here => "here",
                Presence::Down => "down",
                Presence::Gone => "gone",
            }
            .to_owned(),
        })
    }

    /// What the IOMMU stopped of the card since this was last asked, as the kernel's log says it: a card that reached for
    /// memory it was not given. null where nothing was, or where nobody looks.
    #[napi]
    pub fn dma_fault(&self) -> Option<String> {
        self.quiet()?.card.as_ref()?.dma_fault()
    }

    /// Makes a TAP of that name with the card's address: frames with the verdict pass arrive there, and what the kernel
    /// sends there leaves by the card. In this process's own network namespace; gone with the port. Gives its index.
    #[napi]
    pub fn enable_exception(&self, env: Env, name: String, mtu: u32) -> napi::Result<u32> {
        let open = || {
            let mac = self.card_or_gone()?.nic.mac();
            let queues = self.port().slots.len() as u32;
            let (ifindex, ways) = ExceptionPath::open(&name, mac, mtu, queues)?;
            let boxed = |way| Box::new(way) as Box<dyn PassPath>;
            self.port().set_pass(ways.into_iter().map(boxed).collect());
            Ok(ifindex)
        };
        open().or_throw(&env)
    }

    /// Lets the card steer what the filter says; gives its number. Throws EOPNOTSUPP where the card cannot, ENOSPC when
    /// it has no filter left.
    #[napi]
    pub fn add_filter(&self, env: Env, filter: CardFilter) -> napi::Result<u32> {
        let add = || {
            self.card_or_gone()?
                .nic
                .add_filter(&wanted(&filter)?, filter.queue)
        };
        add().or_throw(&env)
    }

    /// Removes a filter of the card.
    #[napi]
    pub fn remove_filter(&self, env: Env, number: u32) -> napi::Result<()> {
        let remove = || self.card_or_gone()?.nic.remove_filter(number);
        remove().or_throw(&env)
    }
}

impl NativePort {
    fn card_or_gone(&self) -> Result<Arc<Quiet>> {
        let none = || Error::new("filter", "the port has no card of our own driver", EOPNOTSUPP);
        self.quiet().ok_or_else(none)
    }
}

const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

fn wanted(filter: &CardFilter) -> Result<Filter> {
    let invalid = |what: &str| Error::new("filter", format!("{what}: it cannot be that"), EINVAL);
    let port = |port: Option<u32>| {
        port.map(|port| u16::try_from(port).map_err(|_| invalid(&format!("port={port}"))))
            .transpose()
    };
    let address = |text: &Option<String>| {
        text.as_deref()
            .map(|text| text.parse::<std::net::Ipv4Addr>().map_err(|_| invalid(text)))
            .transpose()
            .map(|address| address.map(|address| address.octets()))
    };
    match (filter.ether_type, filter.protocol) {
        (Some(ether_type), None) => u16::try_from(ether_type)
            .map(Filter::EtherType)
            .map_err(|_| invalid(&format!("etherType={ether_type}"))),
        (None, Some(protocol)) => Ok(Filter::FiveTuple {
            protocol: u8::try_from(protocol).map_err(|_| invalid(&format!("protocol={protocol}")))?,
            source: address(&filter.source)?,
            destination: address(&filter.destination)?,
            source_port: port(filter.source_port)?,
            destination_port: port(filter.destination_port)?,
        }),
        _ => Err(invalid("a filter is an EtherType or has a protocol")),
    }
}
