//! A driver's own counters by name (`ethtool -S`), e.g. `rx_queue_0_xdp_packets`.

use super::request::{Block, Device, supported};
use crate::{Error, Result};

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETH_SS_STATS: u32 = 1;
const ETH_GSTRING_LEN: usize = 32;
/// Room for so many counters: a card's queues, and their counters with them, may become more between two requests, and
/// the kernel writes as many as there are by then. Cards of 128 queues have some thousands.
const ROOM: usize = 65536;

/// The counters of interface `name` in the driver's order; none where the driver has none.
pub fn statistics(name: &str) -> Result<Option<Vec<(String, u64)>>> {
    let device = Device::open(name)?;
    // struct ethtool_sset_info: command, reserved, a mask of sets, then a count for each set asked for.
    let mut info = Block::new(ETHTOOL_GSSET_INFO, 20);
    info.put(8, 1 << ETH_SS_STATS);
    if cfg!(target_endian = "big") {
        info.put(8, 0);
        info.put(12, 1 << ETH_SS_STATS);
    }
    // SAFETY: the block has room for the one count asked for.
    let answer = unsafe { device.request("ioctl(ETHTOOL_GSSET_INFO)", "counters", &mut info) };
    if supported(answer)?.is_none() || info.get(8) | info.get(12) == 0 {
        return Ok(None);
    }
    let count = info.get(16) as usize;
    if count > ROOM / 2 {
        return Err(Error::new(
            "ioctl(ETHTOOL_GSSET_INFO)",
            format!("dev={name} {count} counters are not believable"),
            libc::EPROTO,
        ));
    }
    // struct ethtool_gstrings: command, set, count, then the names.
    let mut strings = Block::new(ETHTOOL_GSTRINGS, 12 + ROOM * ETH_GSTRING_LEN);
    strings.put(4, ETH_SS_STATS);
    strings.put(8, count as u32);
    // SAFETY: the block has room for twice as many names as a card of any number of queues had a moment ago.
    unsafe { device.request("ioctl(ETHTOOL_GSTRINGS)", "counters", &mut strings) }?;
    // struct ethtool_stats: command, count, then numbers of 64 bits.
    let mut numbers = Block::new(ETHTOOL_GSTATS, 8 + ROOM * 8);
    numbers.put(4, count as u32);
    // SAFETY: as above, of numbers.
    unsafe { device.request("ioctl(ETHTOOL_GSTATS)", "counters", &mut numbers) }?;
    // Each answer tells how many it holds: what both have is believed.
    let both = (strings.get(8) as usize).min(numbers.get(4) as usize).min(ROOM);
    let counter = |at: usize| {
        let name = strings.text(12 + at * ETH_GSTRING_LEN, ETH_GSTRING_LEN);
        (name, numbers.get_long(8 + at * 8))
    };
    Ok(Some((0..both).map(counter).collect()))
}
