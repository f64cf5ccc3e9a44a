//! Receive-side scaling (`ethtool -x`): the indirection table, the key, and the driver's default.

use super::request::{Block, Device, supported};
use crate::Result;

/// How a card spreads flows over its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// Entry n is the queue of the flows whose hash ends in n.
    pub indirection: Vec<u32>,
    /// The hash's key.
    pub key: Vec<u8>,
    /// The hash function: a bit of ETH_RSS_HASH_*, 1 is Toeplitz.
    pub hash_function: u8,
    /// What is done to the hash's input first: a bit of RXH_XFRM_*, 1 is symmetric-xor; 0 is nothing (kernel 6.8).
    pub input_transform: u8,
}

const ETHTOOL_SRXFHINDIR: u32 = 0x39;
const ETHTOOL_GRSSH: u32 = 0x46;
/// struct ethtool_rxfh: command, context, two sizes, hash function; table and key from byte 24 on.
const INDIR_SIZE: usize = 8;
const KEY_SIZE: usize = 12;
const HFUNC: usize = 16;
const RSS_CONFIG: usize = 24;
/// struct ethtool_rxfh_indir: command, size, then the table.
const RING_INDEX: usize = 8;
/// More than any card has; a driver that claims more is not believed.
const LARGEST: u32 = 65536;

/// The table of interface `name`, none where the driver has no RSS.
pub fn rss(name: &str) -> Result<Option<Rss>> {
    let device = Device::open(name)?;
    let mut sizes = Block::new(ETHTOOL_GRSSH, RSS_CONFIG);
    // SAFETY: with both sizes zero the kernel fills in the sizes and no more than the fixed part.
    let answer = unsafe { device.request("ioctl(ETHTOOL_GRSSH)", "sizes", &mut sizes) };
    if supported(answer)?.is_none() {
        return Ok(None);
    }
    let (entries, key) = (
        sizes.get(INDIR_SIZE).min(LARGEST),
        sizes.get(KEY_SIZE).min(LARGEST),
    );
    let (table_length, key_length) = (entries as usize * 4, key as usize);
    let mut block = Block::new(ETHTOOL_GRSSH, RSS_CONFIG + table_length + key_length);
    block.put(INDIR_SIZE, entries);
    block.put(KEY_SIZE, key);
    // SAFETY: the block has room for as many entries and key bytes as it says.
    unsafe { device.request("ioctl(ETHTOOL_GRSSH)", "table", &mut block) }?;
    let indirection = (0..entries as usize)
        .map(|entry| block.get(RSS_CONFIG + entry * 4))
        .collect();
    let key = block.bytes()[RSS_CONFIG + table_length..].to_vec();
    Ok(Some(Rss {
        indirection,
        key,
        hash_function: block.get(HFUNC).to_ne_bytes()[0],
        input_transform: block.get(HFUNC).to_ne_bytes()[1],
    }))
}

/// Sets the indirection table of interface `name`; as many entries as [`rss`] gives. From then on the
/// kernel counts the table as the user's, and keeps queues in it from being taken away.
pub fn set_rss(name: &str, indirection: &[u32]) -> Result<()> {
    let mut block = Block::new(ETHTOOL_SRXFHINDIR, RING_INDEX + indirection.len() * 4);
    block.put(4, indirection.len() as u32);
    for (entry, queue) in indirection.iter().enumerate() {
        block.put(RING_INDEX + entry * 4, *queue);
    }
    let args = format!("entries={} queues={}", indirection.len(), ranges(indirection));
    // SAFETY: the block has as many entries as it says.
    unsafe { Device::open(name)?.request("ioctl(ETHTOOL_SRXFHINDIR)", &args, &mut block) }?;
    Ok(())
}

/// Gives interface `name` the driver's default table back, and the kernel counts it as nobody's (size
/// zero, ethtool_set_rxfh_indir in net/ethtool/ioctl.c).
pub fn reset_rss(name: &str) -> Result<()> {
    let mut block = Block::new(ETHTOOL_SRXFHINDIR, RING_INDEX);
    // SAFETY: a size of zero stands for no entries.
    unsafe { Device::open(name)?.request("ioctl(ETHTOOL_SRXFHINDIR)", "to the default", &mut block) }?;
    Ok(())
}

/// The smallest and largest queue of a table, for an error.
fn ranges(indirection: &[u32]) -> String {
    match (indirection.iter().min(), indirection.iter().max()) {
        (Some(first), Some(last)) => format!("{first}..{last}"),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// The block that an ioctl's argument points at.
    ///
    /// # Safety
    /// `argument` is the address of the struct ifreq that `Device::request` made.
    unsafe fn block<'a>(argument: usize, length: usize) -> &'a mut [u8] {
        let ifreq = std::ptr::with_exposed_provenance::<usize>(argument);
        // SAFETY: the data pointer stands at byte 16 of the struct, which is aligned for it.
        let data = unsafe { *ifreq.add(2) };
        // SAFETY: the request lent its block for the call, and it is that long.
        unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(data), length) }
    }

    #[test]
    fn the_table_and_key_are_read_in_two_steps() {
        let _fake = fake::set(|call| {
            if call.number != libc::SYS_ioctl {
                return None;
            }
            // SAFETY: this is the request of `rss`, whose block has at least the fixed part.
            let head = unsafe { block(call.args[2], 24) };
            assert_eq!(head[..4], 0x46u32.to_ne_bytes());
            if head[8] == 0 {
                head[8] = 4;
                head[12] = 3;
            } else {
                // SAFETY: the block now holds four entries and three bytes of key.
                let whole = unsafe { block(call.args[2], 24 + 16 + 3) };
                whole[16] = 1;
                for (entry, queue) in [0u8, 1, 0, 2].into_iter().enumerate() {
                    whole[24 + entry * 4] = queue;
                }
                whole[40..].copy_from_slice(&[0xaa, 0xbb, 0xcc]);
            }
            Some(Ok(0))
        });
        let found = rss("eth0").unwrap().unwrap();
        assert_eq!(
            found,
            Rss {
                indirection: vec![0, 1, 0, 2],
                key: vec![0xaa, 0xbb, 0xcc],
                hash_function: 1,
                input_transform: 0
            }
        );
    }

    #[test]
    fn the_default_is_asked_for_with_size_zero() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sent = Rc::clone(&seen);
        let _fake = fake::set(move |call| {
            if call.number != libc::SYS_ioctl {
                return None;
            }
            // SAFETY: both requests made here have at least command and size.
            sent.borrow_mut().push(unsafe { block(call.args[2], 8) }.to_vec());
            Some(Ok(0))
        });
        set_rss("eth0", &[0, 1]).unwrap();
        reset_rss("eth0").unwrap();
        assert_eq!(
            *seen.borrow(),
            [[0x39, 0, 0, 0, 2, 0, 0, 0], [0x39, 0, 0, 0, 0, 0, 0, 0]]
        );
    }

    #[test]
    fn a_driver_without_rss_has_none() {
        let _fake = fake::set(|call| (call.number == libc::SYS_ioctl).then_some(Err(libc::EOPNOTSUPP)));
        assert_eq!(rss("eth0"), Ok(None));
        let error = set_rss("eth0", &[0, 1, 2]).unwrap_err();
        assert_eq!(
            (error.code().as_str(), error.args.as_str()),
            ("EOPNOTSUPP", "dev=eth0 entries=3 queues=0..2")
        );
    }
}
