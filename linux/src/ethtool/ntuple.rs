//! Ntuple rules (`ethtool -n`): which flows go to which queue, in the card.

use super::request::{Block, Device, supported};
use crate::{Error, Result};

/// The size of struct ethtool_rx_flow_spec, in bytes.
pub const FLOW_SPEC: usize = 168;

/// A struct ethtool_rx_flow_spec, host byte order as the header lays it out.
pub type FlowSpec = [u8; FLOW_SPEC];

const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRULE: u32 = 0x2f;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
/// A flag in the count's data: the driver chooses locations itself when asked to.
const RX_CLS_LOC_SPECIAL: u64 = 0x8000_0000;
/// struct ethtool_rxnfc: where its fields stand, and its size without a table of locations.
const DATA: usize = 8;
const FS: usize = 16;
const RULE_CNT: usize = 184;
const RULE_LOCS: usize = 188;
const RXNFC: usize = 192;
/// Where the location stands in struct ethtool_rx_flow_spec.
const LOCATION: usize = 160;
/// More than any card holds.
const MOST: u32 = 1 << 20;

/// The rules of interface `name` by location, none where the card has no such rules.
pub fn rules(name: &str) -> Result<Option<Vec<(u32, FlowSpec)>>> {
    let device = Device::open(name)?;
    let Some(table) = supported(table(&device))? else {
        return Ok(None);
    };
    let mut rules = Vec::with_capacity(table.locations.len());
    for location in table.locations {
        let mut block = at(ETHTOOL_GRXCLSRULE, location);
        let args = format!("location={location}");
        // SAFETY: the block is a whole struct ethtool_rxnfc.
        match unsafe { device.request("ioctl(ETHTOOL_GRXCLSRULE)", &args, &mut block) } {
            Ok(_) => rules.push((location, spec(&block))),
            // It was deleted since the locations were asked for.
            Err(error) if matches!(error.errno, libc::ENOENT | libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    rules.sort_by_key(|(location, _)| *location);
    Ok(Some(rules))
}

/// How many rules interface `name` holds at most, zero where it has none.
pub fn rule_capacity(name: &str) -> Result<u32> {
    Ok(supported(table(&Device::open(name)?))?.map_or(0, |table| table.capacity))
}

/// Puts a rule into interface `name`, at the location given (which goes into the rule's own field too).
/// Gives the location where it is: another one when the driver chose it.
pub fn insert_rule(name: &str, location: u32, rule: &FlowSpec) -> Result<u32> {
    let mut block = Block::new(ETHTOOL_SRXCLSRLINS, RXNFC);
    block.put_bytes(FS, rule);
    block.put(FS + LOCATION, location);
    let args = format!("location={location} flow_type={:#x}", block.get(FS));
    // SAFETY: the block is a whole struct ethtool_rxnfc.
    unsafe { Device::open(name)?.request("ioctl(ETHTOOL_SRXCLSRLINS)", &args, &mut block) }?;
    Ok(block.get(FS + LOCATION))
}

/// Takes the rule at `location` out of interface `name`.
pub fn delete_rule(name: &str, location: u32) -> Result<()> {
    let mut block = at(ETHTOOL_SRXCLSRLDEL, location);
    let args = format!("location={location}");
    // SAFETY: the block is a whole struct ethtool_rxnfc.
    unsafe { Device::open(name)?.request("ioctl(ETHTOOL_SRXCLSRLDEL)", &args, &mut block) }?;
    Ok(())
}

struct Table {
    locations: Vec<u32>,
    capacity: u32,
}

/// Where there are rules, and how many there can be. Most drivers tell the capacity with the locations,
/// some with the count.
fn table(device: &Device) -> Result<Table> {
    let mut count = Block::new(ETHTOOL_GRXCLSRLCNT, RXNFC);
    // SAFETY: the block is a whole struct ethtool_rxnfc.
    unsafe { device.request("ioctl(ETHTOOL_GRXCLSRLCNT)", "", &mut count) }?;
    let (rules, told) = (count.get(RULE_CNT), count.get_long(DATA) & !RX_CLS_LOC_SPECIAL);
    if rules > MOST {
        return Err(Error::new(
            "ioctl(ETHTOOL_GRXCLSRLCNT)",
            format!("{rules} rules are not believable"),
            libc::EPROTO,
        ));
    }
    let mut all = Block::new(ETHTOOL_GRXCLSRLALL, RULE_LOCS + rules.max(1) as usize * 4);
    all.put(RULE_CNT, rules);
    // SAFETY: the block has room for as many locations as it says.
    unsafe { device.request("ioctl(ETHTOOL_GRXCLSRLALL)", &format!("rules={rules}"), &mut all) }?;
    let found = all.get(RULE_CNT).min(rules) as usize;
    let capacity = (all.get_long(DATA) & !RX_CLS_LOC_SPECIAL).max(told);
    Ok(Table {
        locations: (0..found).map(|entry| all.get(RULE_LOCS + entry * 4)).collect(),
        capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
    })
}

fn at(command: u32, location: u32) -> Block {
    let mut block = Block::new(command, RXNFC);
    block.put(FS + LOCATION, location);
    block
}

fn spec(block: &Block) -> FlowSpec {
    let mut spec = [0; FLOW_SPEC];
    spec.copy_from_slice(&block.bytes()[FS..FS + FLOW_SPEC]);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    /// The numbers above, asked of the C compiler and the kernel's header.
    #[test]
    fn the_header_lays_it_out_so() {
        let test = "the_header_lays_it_out_so";
        if !std::path::Path::new("/usr/include/linux/ethtool.h").exists() {
            println!("SKIPPED {test}: there is no /usr/include/linux/ethtool.h");
            return;
        }
        let fields = [
            ("sizeof(struct ethtool_rx_flow_spec)", FLOW_SPEC),
            ("sizeof(struct ethtool_rxnfc)", RXNFC),
            ("offsetof(struct ethtool_rx_flow_spec, location)", LOCATION),
            ("offsetof(struct ethtool_rxnfc, data)", DATA),
            ("offsetof(struct ethtool_rxnfc, fs)", FS),
            ("offsetof(struct ethtool_rxnfc, rule_cnt)", RULE_CNT),
            ("offsetof(struct ethtool_rxnfc, rule_locs)", RULE_LOCS),
            ("ETHTOOL_SRXCLSRLINS", ETHTOOL_SRXCLSRLINS as usize),
            ("ETHTOOL_SRXCLSRLDEL", ETHTOOL_SRXCLSRLDEL as usize),
            ("ETHTOOL_GRXCLSRLALL", ETHTOOL_GRXCLSRLALL as usize),
            ("ETHTOOL_GRXCLSRLCNT", ETHTOOL_GRXCLSRLCNT as usize),
            ("ETHTOOL_GRXCLSRULE", ETHTOOL_GRXCLSRULE as usize),
            ("RX_CLS_LOC_SPECIAL", RX_CLS_LOC_SPECIAL as usize),
            ("offsetof(struct ethtool_link_settings, link_mode_masks)", 48),
            (
                "offsetof(struct ethtool_link_settings, link_mode_masks_nwords)",
                15,
            ),
            ("offsetof(struct ethtool_link_settings, speed)", 4),
            ("sizeof(struct ethtool_drvinfo)", 196),
            ("sizeof(struct ethtool_channels)", 36),
            ("offsetof(struct ethtool_channels, combined_count)", 32),
            ("sizeof(struct ethtool_ringparam)", 36),
            ("offsetof(struct ethtool_ringparam, tx_pending)", 32),
            ("offsetof(struct ethtool_rxfh, rss_config)", 24),
            ("offsetof(struct ethtool_rxfh, hfunc)", 16),
            ("offsetof(struct ethtool_rxfh_indir, ring_index)", 8),
            ("offsetof(struct ethtool_gfeatures, features)", 8),
            ("offsetof(struct ethtool_gstrings, data)", 12),
            ("offsetof(struct ethtool_sset_info, data)", 16),
        ];
        let checks: String = fields
            .iter()
            .map(|(what, value)| format!("_Static_assert({what} == {value}u, \"{what}\");\n"))
            .collect();
        let source = format!("#include <stddef.h>\n#include <linux/ethtool.h>\n{checks}");
        let mut compiler = match std::process::Command::new("cc")
            .args(["-x", "c", "-fsyntax-only", "-"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
        {
            Ok(compiler) => compiler,
            Err(error) => return println!("SKIPPED {test}: no C compiler: {error}"),
        };
        std::io::Write::write_all(&mut compiler.stdin.take().unwrap(), source.as_bytes()).unwrap();
        let output = compiler.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    type Held = Rc<RefCell<BTreeMap<u32, Vec<u8>>>>;

    /// A card that holds rules, behind the ioctl.
    fn card(capacity: u32) -> (fake::Fake, Held) {
        let rules = Held::default();
        let held = Rc::clone(&rules);
        let fake = fake::set(move |call| {
            if call.number != libc::SYS_ioctl {
                return None;
            }
            let ifreq = std::ptr::with_exposed_provenance::<usize>(call.args[2]);
            // SAFETY: the argument is the struct ifreq of `Device::request`, its pointer at byte 16.
            let data = std::ptr::with_exposed_provenance_mut::<u8>(unsafe { *ifreq.add(2) });
            // SAFETY: every request of this module is a whole struct ethtool_rxnfc.
            let block = unsafe { std::slice::from_raw_parts_mut(data, RULE_LOCS) };
            let word = |block: &[u8], at: usize| u32::from_ne_bytes(block[at..at + 4].try_into().unwrap());
            let location = word(block, FS + LOCATION);
            let mut rules = held.borrow_mut();
            Some(match word(block, 0) {
                ETHTOOL_GRXCLSRLCNT => {
                    block[RULE_CNT..RULE_CNT + 4].copy_from_slice(&(rules.len() as u32).to_ne_bytes());
                    Ok(0)
                }
                ETHTOOL_GRXCLSRLALL => {
                    block[DATA..DATA + 8].copy_from_slice(&u64::from(capacity).to_ne_bytes());
                    for (entry, location) in rules.keys().enumerate() {
                        // SAFETY: the caller made room for as many locations as the count said.
                        unsafe {
                            data.add(RULE_LOCS + entry * 4)
                                .cast::<u32>()
                                .write_unaligned(*location)
                        };
                    }
                    Ok(0)
                }
                ETHTOOL_GRXCLSRULE => match rules.get(&location) {
                    Some(rule) => {
                        block[FS..FS + FLOW_SPEC].copy_from_slice(rule);
                        Ok(0)
                    }
                    None => Err(libc::ENOENT),
                },
                ETHTOOL_SRXCLSRLINS => {
                    rules.insert(location, block[FS..FS + FLOW_SPEC].to_vec());
                    Ok(0)
                }
                ETHTOOL_SRXCLSRLDEL => rules.remove(&location).map(|_| 0).ok_or(libc::ENOENT),
                _ => Err(libc::EOPNOTSUPP),
            })
        });
        (fake, rules)
    }

    #[test]
    fn rules_come_back_as_they_went_in() {
        let (_fake, held) = card(1024);
        let mut rule = [0; FLOW_SPEC];
        rule[0] = 2; // UDP_V4_FLOW
        rule[14] = 53;
        assert_eq!(insert_rule("eth0", 1022, &rule), Ok(1022));
        assert_eq!(insert_rule("eth0", 7, &rule), Ok(7));
        let found = rules("eth0").unwrap().unwrap();
        assert_eq!(
            found.iter().map(|(location, _)| *location).collect::<Vec<_>>(),
            [7, 1022]
        );
        assert_eq!(found[1].1[..LOCATION], rule[..LOCATION]);
        assert_eq!(found[1].1[LOCATION..LOCATION + 4], 1022u32.to_ne_bytes());
        assert_eq!(rule_capacity("eth0"), Ok(1024));
        delete_rule("eth0", 7).unwrap();
        assert_eq!(delete_rule("eth0", 7).unwrap_err().code(), "ENOENT");
        assert_eq!(held.borrow().len(), 1);
    }

    #[test]
    fn a_card_without_rules_has_none() {
        let _fake = fake::set(|call| (call.number == libc::SYS_ioctl).then_some(Err(libc::EOPNOTSUPP)));
        assert_eq!(rules("eth0"), Ok(None));
        assert_eq!(rule_capacity("eth0"), Ok(0));
        let error = insert_rule("eth0", 3, &[0; FLOW_SPEC]).unwrap_err();
        assert_eq!(
            (error.call, error.errno),
            ("ioctl(ETHTOOL_SRXCLSRLINS)", libc::EOPNOTSUPP)
        );
    }
}
