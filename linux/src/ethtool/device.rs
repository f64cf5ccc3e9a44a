//! What a card is and how many queues and descriptors it has: drvinfo, channels, ringparam.

use super::request::{Block, Device, supported};
use crate::Result;

/// `ethtool -i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverInfo {
    /// The driver's name, e.g. `igb`.
    pub driver: String,
    /// Its version, for drivers of the kernel the kernel's.
    pub version: String,
    /// The card's firmware, empty where there is none.
    pub firmware: String,
    /// Where the card is, e.g. `0000:01:00.0`.
    pub bus: String,
}

/// Numbers of queues (`ethtool -l`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Receive only.
    pub rx: u32,
    /// Transmit only.
    pub tx: u32,
    /// Receive and transmit together.
    pub combined: u32,
    /// For other purposes.
    pub other: u32,
}

/// What a card can have of queues, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelsFacts {
    /// The most it can have.
    pub max: Channels,
    /// What it has.
    pub now: Channels,
}

/// Descriptors a ring (`ethtool -g`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rings {
    /// Of each receive ring.
    pub rx: u32,
    /// Of each transmit ring.
    pub tx: u32,
    /// The most of a receive ring.
    pub rx_max: u32,
    /// The most of a transmit ring.
    pub tx_max: u32,
}

const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;
/// struct ethtool_link_settings without its masks; where speed and the number of mask words stand.
const LINK_SETTINGS: usize = 48;
const SPEED: usize = 4;
const MASK_WORDS: usize = 15;
/// SPEED_UNKNOWN.
const UNKNOWN: u32 = u32::MAX;
/// Sizes in bytes of struct ethtool_drvinfo, ethtool_ringparam, ethtool_channels.
const DRVINFO: usize = 196;
const RINGPARAM: usize = 36;
const CHANNELS: usize = 36;

/// The driver of interface `name`.
pub fn driver(name: &str) -> Result<DriverInfo> {
    let mut block = Block::new(ETHTOOL_GDRVINFO, DRVINFO);
    // SAFETY: the block is a whole struct ethtool_drvinfo.
    unsafe { Device::open(name)?.request("ioctl(ETHTOOL_GDRVINFO)", "", &mut block) }?;
    let field = |number: usize| block.text(4 + 32 * number, 32);
    Ok(DriverInfo {
        driver: field(0),
        version: field(1),
        firmware: field(2),
        bus: field(3),
    })
}

/// The speed of interface `name` in Mbit/s; none where the driver does not tell, or there is no link.
pub fn speed(name: &str) -> Result<Option<u32>> {
    let (device, call) = (Device::open(name)?, "ioctl(ETHTOOL_GLINKSETTINGS)");
    let mut block = Block::new(ETHTOOL_GLINKSETTINGS, LINK_SETTINGS);
    // SAFETY: with no mask words asked for, the kernel writes the fixed part and how many there are.
    if supported(unsafe { device.request(call, "size", &mut block) })?.is_none() {
        return Ok(None);
    }
    // The answer to a wrong number of words is the right one, negative; three masks have so many each.
    let words = i8::from_ne_bytes([block.bytes()[MASK_WORDS]]).unsigned_abs();
    let mut block = Block::new(ETHTOOL_GLINKSETTINGS, LINK_SETTINGS + usize::from(words) * 3 * 4);
    block.put_bytes(MASK_WORDS, &[words]);
    // SAFETY: the block has room for three masks of as many words as it says.
    unsafe { device.request(call, "", &mut block) }?;
    Ok(Some(block.get(SPEED)).filter(|speed| !matches!(*speed, 0 | UNKNOWN)))
}

/// The queues of interface `name`.
pub fn channels(name: &str) -> Result<Option<ChannelsFacts>> {
    let Some(block) = supported(read_channels(&Device::open(name)?))? else {
        return Ok(None);
    };
    // After the command: rx, tx, other, combined, the maxima first.
    let four = |at| Channels {
        rx: block.get(at),
        tx: block.get(at + 4),
        other: block.get(at + 8),
        combined: block.get(at + 12),
    };
    Ok(Some(ChannelsFacts {
        max: four(4),
        now: four(20),
    }))
}

fn read_channels(device: &Device) -> Result<Block> {
    let mut block = Block::new(ETHTOOL_GCHANNELS, CHANNELS);
    // SAFETY: the block is a whole struct ethtool_channels.
    unsafe { device.request("ioctl(ETHTOOL_GCHANNELS)", "", &mut block) }?;
    Ok(block)
}

/// Sets the queues of interface `name`. A driver may close and reopen the device for it.
pub fn set_channels(name: &str, channels: &Channels) -> Result<()> {
    let device = Device::open(name)?;
    let mut block = read_channels(&device)?;
    block.put(0, ETHTOOL_SCHANNELS);
    for (at, count) in [
        (20, channels.rx),
        (24, channels.tx),
        (28, channels.other),
        (32, channels.combined),
    ] {
        block.put(at, count);
    }
    let args = format!(
        "rx={} tx={} other={} combined={}",
        channels.rx, channels.tx, channels.other, channels.combined
    );
    // SAFETY: the block is a whole struct ethtool_channels.
    unsafe { device.request("ioctl(ETHTOOL_SCHANNELS)", &args, &mut block) }?;
    Ok(())
}

/// The descriptor rings of interface `name`.
pub fn rings(name: &str) -> Result<Option<Rings>> {
    let mut block = Block::new(ETHTOOL_GRINGPARAM, RINGPARAM);
    // SAFETY: the block is a whole struct ethtool_ringparam.
    let answer = unsafe { Device::open(name)?.request("ioctl(ETHTOOL_GRINGPARAM)", "", &mut block) };
    // After the command: the maxima of rx, rx mini, rx jumbo, tx, then what is.
    let read = |_| Rings {
        rx_max: block.get(4),
        tx_max: block.get(16),
        rx: block.get(20),
        tx: block.get(32),
    };
    Ok(supported(answer)?.map(read))
}
