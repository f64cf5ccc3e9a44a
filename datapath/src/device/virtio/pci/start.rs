//! How a virtio card is started: the steps of section 3.1.1, over the registers of section 4.1.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use bifurcate_linux::card::Card;
use bifurcate_linux::{Error, Result};

use crate::device::pmd::{Config, Pool, Quiet, Waking};
use crate::device::{Port, QueuePair, State};
use crate::frame::{Cache, Umem};
use crate::ring::virtio::feature;

use super::super::queue::{AnyRing, Queue};
use super::super::rings::{RingAt, RingMemory};
use super::super::rx::Rx;
use super::super::tx::Tx;
use super::Virtio;
use super::control::{ADDRESS, Command, Control, PAIRS, PROMISCUOUS};
use super::registers::{
    CONFIG_GENERATION, CONFIG_MSIX_VECTOR, DEVICE_FEATURE, DEVICE_FEATURE_SELECT, DEVICE_STATUS,
    DRIVER_FEATURE, DRIVER_FEATURE_SELECT, Field, MAC_HIGH, MAC_LOW, MAX_PAIRS, NO_VECTOR, NUM_QUEUES,
    QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_MSIX_VECTOR, QUEUE_NOTIFY_OFF, QUEUE_SELECT,
    QUEUE_SIZE, Structures, status,
};
use super::transport::{OnCard, Shared};

/// What the driver can do, beside what is asked of it.
const FEATURES: u64 = feature::VERSION_1
    | feature::ACCESS_PLATFORM
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::IN_ORDER
    | feature::MAC
    | feature::STATUS
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_MAC_ADDR;

/// Slots of the control queue: one command at a time.
const CONTROL_SIZE: u16 = 16;

const EINVAL: i32 = 22;
const ENOMEM: i32 = 12;
const EOPNOTSUPP: i32 = 95;

/// What is to be started, and how.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// None behind a model.
    pub(super) card: Option<&'a Arc<Card>>,
    pub(super) config: &'a Config,
    pub(super) umem: &'a Arc<Umem>,
    /// Bytes of the pool that the card reaches.
    pub(super) reach: u32,
    /// An IOMMU translates for the card.
    pub(super) protected: bool,
    pub(super) waking: Waking,
}

fn unsupported(why: impl Into<String>) -> Error {
    Error::new("virtio", why.into(), EOPNOTSUPP)
}

/// Starts whatever has a virtio card's structures. `memory` gives the card's memory, with so many bytes for rings, and
/// lets the card reach it.
pub(super) fn start(
    wanted: &Wanted<'_>,
    structures: &Arc<dyn Structures>,
    memory: impl FnOnce(usize) -> Result<Pool>,
) -> Result<(Port, Arc<Quiet>)> {
    Virtio::reset(&**structures)?;
    let begun = begin(wanted, structures, memory);
    if begun.is_err() {
        // Section 3.1.1: the driver has given up on the device.
        structures.write(DEVICE_STATUS, status::FAILED);
    }
    begun
}

fn begin(
    wanted: &Wanted<'_>,
    structures: &Arc<dyn Structures>,
    memory: impl FnOnce(usize) -> Result<Pool>,
) -> Result<(Port, Arc<Quiet>)> {
    let Wanted {
        config,
        umem,
        protected,
        ..
    } = *wanted;
    let registers = &**structures;
    registers.write(DEVICE_STATUS, status::ACKNOWLEDGE);
    registers.write(DEVICE_STATUS, status::ACKNOWLEDGE | status::DRIVER);
    let features = negotiate(registers, config, protected, umem.jumbo_frames() > 0)?;
    let pairs = config.queues as usize;
    // Ring 2n receives for pair n, ring 2n + 1 sends; the control queue comes after the last that there can be
    // (section 5.1.2).
    let control_number = if features & feature::MQ != 0 {
        let most = registers.read(MAX_PAIRS);
        if !(config.queues..=0x8000).contains(&most) {
            return Err(Error::new(
                "virtio",
                format!("queues={pairs}: the device has {most}"),
                EINVAL,
            ));
        }
        2 * most
    } else {
        2
    };
    let has_control = features & feature::CTRL_VQ != 0 && features & feature::INDIRECT_DESC != 0;
    let size = ring_size(registers, config, 2 * config.queues)?;
    let least = 2 * config.queues * u32::from(size);
    if umem.frames() < least {
        let frames = umem.frames();
        let why = format!("a pool of {frames} frames; the rings alone hold {least}");
        return Err(Error::new("virtio", why, ENOMEM));
    }
    // A power of two, so that no ring lies across two huge pages.
    let stride = RingMemory::bytes(size).next_power_of_two();
    let control_from = stride * 2 * pairs;
    let control_stride = RingMemory::bytes(CONTROL_SIZE).next_power_of_two();
    let pool = memory(control_from + control_stride)?;
    let of = |from, size, stride| {
        RingMemory::new(
            Arc::clone(pool.slots()),
            Arc::clone(pool.slots_table()),
            from,
            size,
            stride,
        )
    };
    let rings = of(0, size, stride);
    let control_rings = of(control_from, CONTROL_SIZE, control_stride);
    let nic = Virtio {
        structures: Arc::clone(structures),
        mac: address(registers, features, config),
        has_status: features & feature::STATUS != 0,
    };
    // From here on whatever ends this resets the card, and frames that it may have are free after that alone.
    let quiet = Quiet::new(Box::new(nic), wanted.card.cloned(), pool.clone());
    let quiet = Arc::new(quiet.with_waking(wanted.waking.clone()));
    let packed = features & feature::RING_PACKED != 0;
    let queues: Vec<Arc<Queue>> = (0..2 * pairs).map(|_| Queue::new(size)).collect();
    let mut notify = Vec::with_capacity(queues.len());
    registers.write(CONFIG_MSIX_VECTOR, NO_VECTOR);
    for (index, queue) in queues.iter().enumerate() {
        let (places, at) = rings.places(index, packed);
        let receives = index.is_multiple_of(2);
        // The rings are cleared before the card is told of them.
        queue.renew(|| AnyRing::new(places, features), features, umem, receives);
        let vector = if wanted.waking.vectors && receives {
            index as u32 / 2
        } else {
            NO_VECTOR
        };
        notify.push(enable(registers, index as u32, size, vector, at)?);
    }
    let control = if has_control {
        let (places, at) = control_rings.places(0, packed);
        let ring = AnyRing::new(places, features);
        Some((
            ring,
            enable(registers, control_number, CONTROL_SIZE, NO_VECTOR, at)?,
        ))
    } else {
        None
    };
    let here = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
    registers.write(DEVICE_STATUS, here);
    for queue in &queues {
        queue.set_up(true);
    }
    if let Some((ring, offset)) = control {
        let notify = || registers.notify(offset, control_number as u16);
        let address = |offset| pool.frames.address(offset);
        let control = Control {
            ring,
            notify: &notify,
            address: &address,
        };
        command(control, config, features, umem, &quiet)?;
    }
    let shared = Arc::new(Shared {
        structures: Arc::clone(structures),
        queues,
        rings,
        umem: Arc::clone(umem),
        frames: Arc::clone(&pool.frames),
        reach: wanted.reach,
        notify,
        interrupts: wanted.waking.interrupts,
        vectors: wanted.waking.vectors,
        state: AtomicU8::new(State::Up as u8),
        quiet: Arc::clone(&quiet),
    });
    let pair = |(index, pair): (usize, &[Arc<Queue>])| QueuePair {
        index: index as u32,
        rx: Box::new(Rx::new(&pair[0], OnCard::new(&shared), 2 * index)),
        tx: Box::new(Tx::new(&pair[1], OnCard::new(&shared), 2 * index + 1)),
    };
    let port = Port {
        name: wanted.name.to_owned(),
        queues: shared.queues.chunks(2).enumerate().map(pair).collect(),
        umem: Arc::clone(umem),
    };
    Ok((port, quiet))
}

/// Agrees on features (section 3.1.1, steps 4 to 6).
fn negotiate(registers: &dyn Structures, config: &Config, protected: bool, jumbo: bool) -> Result<u64> {
    let mut offered = 0u64;
    for half in 0..2 {
        registers.write(DEVICE_FEATURE_SELECT, half);
        offered |= u64::from(registers.read(DEVICE_FEATURE)) << (32 * half);
    }
    let mut wanted = FEATURES;
    for (bit, asked) in [
        (feature::RING_PACKED, config.packed),
        (feature::MQ, config.queues > 1),
        (feature::MRG_RXBUF, jumbo),
    ] {
        wanted |= if asked { bit } else { 0 };
    }
    let features = offered & wanted;
    let has = |bits: u64| features & bits == bits;
    if !has(feature::VERSION_1) {
        return Err(unsupported("the device does not offer VIRTIO_F_VERSION_1"));
    }
    if protected && !has(feature::ACCESS_PLATFORM) {
        return Err(unsupported(
            "the device does not offer VIRTIO_F_ACCESS_PLATFORM: it passes by the IOMMU, and would take the addresses \
             that were mapped for physical ones (QEMU: iommu_platform=on)",
        ));
    }
    if config.packed && !has(feature::RING_PACKED) {
        return Err(unsupported(
            "packed=yes: the device does not offer VIRTIO_F_RING_PACKED",
        ));
    }
    let control = feature::CTRL_VQ | feature::INDIRECT_DESC;
    if config.queues > 1 && !has(feature::MQ | control) {
        let why = format!(
            "queues={}: the device has one (no VIRTIO_NET_F_MQ)",
            config.queues
        );
        return Err(unsupported(why));
    }
    if config.mac.is_some() && !has(feature::CTRL_MAC_ADDR | control) {
        return Err(unsupported(
            "mac=: the device does not offer VIRTIO_NET_F_CTRL_MAC_ADDR",
        ));
    }
    for half in 0..2 {
        registers.write(DRIVER_FEATURE_SELECT, half);
        registers.write(DRIVER_FEATURE, (features >> (32 * half)) as u32);
    }
    let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
    registers.write(DEVICE_STATUS, agreed);
    if registers.read(DEVICE_STATUS) & status::FEATURES_OK == 0 {
        return Err(unsupported(format!(
            "the device refuses {} together",
            feature::list(features)
        )));
    }
    Ok(features)
}

/// Slots of each ring: what is asked for, or the largest power of two that every ring of the device can have.
fn ring_size(registers: &dyn Structures, config: &Config, rings: u32) -> Result<u16> {
    let there = registers.read(NUM_QUEUES);
    let mut size = config.ring_size;
    for index in 0..rings {
        registers.write(QUEUE_SELECT, index);
        let most = registers.read(QUEUE_SIZE);
        if most < 8 || index >= there {
            let why = format!("virtqueue {index} has {most} slots; the device has {there} queues");
            return Err(unsupported(why));
        }
        size = size.min(1 << most.ilog2());
    }
    Ok(size as u16)
}

/// Tells the card of a ring and switches it on (section 4.1.5.1.3); gives its QUEUE_NOTIFY_OFF.
fn enable(registers: &dyn Structures, index: u32, size: u16, vector: u32, at: RingAt) -> Result<u32> {
    registers.write(QUEUE_SELECT, index);
    if registers.read(QUEUE_SIZE) < size.into() {
        return Err(unsupported(format!(
            "virtqueue {index} has fewer than {size} slots"
        )));
    }
    registers.write(QUEUE_SIZE, size.into());
    for (field, address) in [
        (QUEUE_DESC, at.desc),
        (QUEUE_DRIVER, at.driver),
        (QUEUE_DEVICE, at.device),
    ] {
        let high = Field {
            offset: field.offset + 4,
            ..field
        };
        registers.write(field, address as u32);
        registers.write(high, (address >> 32) as u32);
    }
    registers.write(QUEUE_MSIX_VECTOR, vector);
    if registers.read(QUEUE_MSIX_VECTOR) != vector {
        let why = format!("virtqueue {index}: the device has no room for interrupt vector {vector}");
        return Err(Error::new("virtio", why, ENOMEM));
    }
    let offset = registers.read(QUEUE_NOTIFY_OFF);
    if !registers.can_notify(offset) {
        let why = format!("virtqueue {index} is notified outside of the card's memory");
        return Err(unsupported(why));
    }
    registers.write(QUEUE_ENABLE, 1);
    Ok(offset)
}

/// The card's address, or the one that is asked for.
fn address(registers: &dyn Structures, features: u64, config: &Config) -> [u8; 6] {
    if let Some(mac) = config.mac {
        return mac;
    }
    if features & feature::MAC == 0 {
        // One that has none is given one: at random, locally administered, so that two such cards differ.
        let [_, _, rest @ ..] = RandomState::new().hash_one(0u8).to_le_bytes();
        return [0x02, rest[1], rest[2], rest[3], rest[4], rest[5]];
    }
    // Read anew when it changed in between (section 2.5.1); a device that never rests is believed in the end.
    let mut mac = [0; 6];
    for _ in 0..8 {
        let before = registers.read(CONFIG_GENERATION);
        mac[..4].copy_from_slice(&registers.read(MAC_LOW).to_le_bytes());
        mac[4..].copy_from_slice(&registers.read(MAC_HIGH).to_le_bytes()[..2]);
        if registers.read(CONFIG_GENERATION) == before {
            break;
        }
    }
    mac
}

/// What is asked of the device through its control queue.
fn command(
    mut control: Control<'_>,
    config: &Config,
    features: u64,
    umem: &Arc<Umem>,
    quiet: &Arc<Quiet>,
) -> Result<()> {
    let mut cache = Cache::new(umem);
    let Some(mut frame) = cache.take() else {
        return Err(Error::new(
            "virtio",
            "no free frame for the control queue",
            ENOMEM,
        ));
    };
    let pairs = (config.queues as u16).to_le_bytes();
    let commands: [(bool, Command, &[u8]); 3] = [
        (features & feature::MQ != 0, PAIRS, &pairs),
        (
            features & feature::CTRL_RX != 0,
            PROMISCUOUS,
            &[u8::from(config.promiscuous)],
        ),
        (
            config.mac.is_some(),
            ADDRESS,
            config.mac.as_ref().map_or(&[][..], |mac| &mac[..]),
        ),
    ];
    for (asked, command, data) in commands {
        if asked && let Err(error) = control.run(command, data, &cache, &mut frame) {
            quiet.adopt(std::iter::once(frame));
            return Err(error);
        }
    }
    cache.give(frame);
    Ok(())
}
