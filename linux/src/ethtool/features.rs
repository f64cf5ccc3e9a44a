//! Features of a card by name (`ethtool -k`), e.g. `rx-vlan-hw-parse`, `rx-ntuple-filter`.

use super::request::{Block, Device};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// One feature's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub active: bool,
    /// The user wants it on.
    pub requested: bool,
    /// The driver lets it be changed.
    pub available: bool,
    /// It cannot be changed, or never could be: `[fixed]` in ethtool's words.
    pub fixed: bool,
}

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// More than any kernel has.
const MOST: u32 = 1024;

/// The features of interface `name`.
pub fn features(name: &str) -> Result<BTreeMap<String, Feature>> {
    let device = Device::open(name)?;
    let names = names(&device)?;
    let words = names.len().div_ceil(32);
    // struct ethtool_gfeatures: command, size, then four words of 32 bits for each 32 features.
    let mut block = Block::new(ETHTOOL_GFEATURES, 8 + words * 16);
    block.put(4, words as u32);
    // SAFETY: the block has room for as many words as it says.
    unsafe { device.request("ioctl(ETHTOOL_GFEATURES)", "", &mut block) }?;
    let bit =
        |number: usize, field: usize| block.get(8 + number / 32 * 16 + field * 4) >> (number % 32) & 1 == 1;
    let state = |number| {
        let [available, requested, active, never_changed] = [0, 1, 2, 3].map(|field| bit(number, field));
        Feature {
            active,
            requested,
            available,
            fixed: never_changed || !available,
        }
    };
    Ok(names
        .into_iter()
        .enumerate()
        .filter(|(_, n)| !n.is_empty())
        .map(|(i, n)| (n, state(i)))
        .collect())
}

/// Switches a feature of interface `name`. EINVAL for a name that the kernel does not know, EOPNOTSUPP
/// when the driver does not do it.
pub fn set_feature(name: &str, feature: &str, on: bool) -> Result<()> {
    let call = "ioctl(ETHTOOL_SFEATURES)";
    let args = format!("{feature}={}", if on { "on" } else { "off" });
    let refused = |errno| Error::new(call, format!("dev={name} {args}"), errno);
    let device = Device::open(name)?;
    let names = names(&device)?;
    let number = names
        .iter()
        .position(|known| known == feature)
        .ok_or_else(|| refused(libc::EINVAL))?;
    let words = names.len().div_ceil(32);
    // struct ethtool_sfeatures: command, size, then two words (which bits, their values) for each 32.
    let mut block = Block::new(ETHTOOL_SFEATURES, 8 + words * 8);
    block.put(4, words as u32);
    let (at, mask) = (8 + number / 32 * 8, 1 << (number % 32));
    block.put(at, mask);
    block.put(at + 4, if on { mask } else { 0 });
    // SAFETY: the block has as many words as it says.
    unsafe { device.request(call, &args, &mut block) }?;
    // The ioctl succeeds when a driver keeps what it cannot change: ask what came of it.
    match features(name)?.get(feature) {
        Some(state) if state.active == on => Ok(()),
        _ => Err(refused(libc::EOPNOTSUPP)),
    }
}

/// The kernel's names of all features, in the order of their bits.
fn names(device: &Device) -> Result<Vec<String>> {
    // struct ethtool_sset_info: command, reserved, a mask of sets, then a count for each set asked for.
    let mut info = Block::new(ETHTOOL_GSSET_INFO, 20);
    info.put(8, 1 << ETH_SS_FEATURES);
    if cfg!(target_endian = "big") {
        info.put(8, 0);
        info.put(12, 1 << ETH_SS_FEATURES);
    }
    // SAFETY: the block has room for the one count asked for.
    unsafe { device.request("ioctl(ETHTOOL_GSSET_INFO)", "features", &mut info) }?;
    let count = info.get(16);
    if count > MOST {
        return Err(Error::new(
            "ioctl(ETHTOOL_GSSET_INFO)",
            format!("{count} features are not believable"),
            libc::EPROTO,
        ));
    }
    let count = count as usize;
    // struct ethtool_gstrings: command, set, count, then the strings.
    let mut strings = Block::new(ETHTOOL_GSTRINGS, 12 + count * ETH_GSTRING_LEN);
    strings.put(4, ETH_SS_FEATURES);
    strings.put(8, count as u32);
    // SAFETY: the kernel writes as many names as it has, which is the count just asked for: the names of
    // features are a constant table (netdev_features_strings, net/ethtool/common.c).
    unsafe { device.request("ioctl(ETHTOOL_GSTRINGS)", "features", &mut strings) }?;
    let bytes = strings.bytes();
    let name = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    Ok(bytes[12..].chunks(ETH_GSTRING_LEN).map(name).collect())
}
