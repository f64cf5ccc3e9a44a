//! What of a packet goes into the RSS hash (`ethtool -n DEV rx-flow-hash udp4`).

use super::request::{Block, Device, supported};
use crate::Result;

/// A kind of flow (include/uapi/linux/ethtool.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub enum FlowType {
    Tcp4 = 0x01,
    Udp4 = 0x02,
    Sctp4 = 0x03,
    Tcp6 = 0x05,
    Udp6 = 0x06,
    Sctp6 = 0x07,
    Ip4 = 0x10,
    Ip6 = 0x11,
}

const ETHTOOL_GRXFH: u32 = 0x29;
/// struct ethtool_rxnfc: where flow type and data stand, and its size.
const FLOW_TYPE: usize = 4;
const DATA: usize = 8;
const RXNFC: usize = 192;

/// The RXH_* bits of a kind of flow on interface `name`; none where the driver does not tell.
pub fn hash_fields(name: &str, flow: FlowType) -> Result<Option<u32>> {
    let mut block = Block::new(ETHTOOL_GRXFH, RXNFC);
    block.put(FLOW_TYPE, flow as u32);
    let device = Device::open(name)?;
    // SAFETY: the block is a whole struct ethtool_rxnfc.
    let answer = unsafe { device.request("ioctl(ETHTOOL_GRXFH)", &format!("{flow:?}"), &mut block) };
    match supported(answer) {
        Ok(Some(_)) => Ok(Some(block.get_long(DATA) as u32)),
        Ok(None) => Ok(None),
        // Some drivers refuse a kind of flow that they cannot hash in place of telling that it has no fields.
        Err(error) if error.errno == libc::EINVAL => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn the_bits_stand_in_data() {
        let _fake = fake::set(|call| {
            if call.number != libc::SYS_ioctl {
                return None;
            }
            let ifreq = std::ptr::with_exposed_provenance::<usize>(call.args[2]);
            // SAFETY: the data pointer stands at byte 16 of the struct ifreq, which is aligned for it.
            let data = unsafe { *ifreq.add(2) };
            // SAFETY: the request lent its block, a whole struct ethtool_rxnfc, for the call.
            let block = unsafe {
                std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(data), RXNFC)
            };
            assert_eq!(block[..8], [0x29, 0, 0, 0, 2, 0, 0, 0]);
            block[8] = 0xf0;
            Some(Ok(0))
        });
        assert_eq!(hash_fields("eth0", FlowType::Udp4), Ok(Some(0xf0)));
    }
}
