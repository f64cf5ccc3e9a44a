//! The virtual functions of a card, as its physical function's driver sets them (rtnetlink(7), IFLA_VFINFO_LIST).

use super::link::{Mac, set_request};
use super::message::Message;
use super::socket::{Protocol, Socket};
use crate::{Error, Result};

/// Attributes of include/uapi/linux/if_link.h.
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;

/// Bytes of `struct ifla_vf_mac`: the function's number, and room for an address (MAX_ADDR_LEN).
const VF_MAC: usize = 4 + 32;

/// The highest VLAN id; 0 is none (IEEE 802.1Q).
const VLAN_MAX: u16 = 4094;

/// What a virtual function may do on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualFunction {
    /// Its number, from 0.
    pub number: u32,
    /// The address whose frames it gets.
    pub mac: Mac,
    /// The VLAN that it is in, without knowing: the card adds and removes the tag. 0: none.
    pub vlan: u16,
    /// The card drops what it sends from another address.
    pub spoof_check: bool,
}

/// Sets a virtual function of the card whose interface has index `index`.
///
/// # Errors
/// `EOPNOTSUPP`: its driver has no virtual functions. `EINVAL`: no such function, or a VLAN that there cannot be.
/// `EPERM`: no CAP_NET_ADMIN.
pub fn set(index: u32, vf: &VirtualFunction) -> Result<()> {
    let args = format!("ifindex={index} {vf:02x?}");
    if vf.vlan > VLAN_MAX {
        return Err(Error::new("netlink(RTM_SETLINK)", args, libc::EINVAL));
    }
    let message = fill(set_request(index), vf);
    Socket::open(Protocol::Route)?.change("netlink(RTM_SETLINK)", &args, message)
}

fn fill(message: Message, vf: &VirtualFunction) -> Message {
    let mut mac = [0; VF_MAC];
    mac[..4].copy_from_slice(&vf.number.to_ne_bytes());
    mac[4..10].copy_from_slice(&vf.mac);
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    message.nested(IFLA_VFINFO_LIST, |list| {
        list.nested(IFLA_VF_INFO, |info| {
            info.attribute(IFLA_VF_MAC, &mac)
                .attribute(IFLA_VF_VLAN, &words(&[vf.number, vf.vlan.into(), 0]))
                .attribute(IFLA_VF_SPOOFCHK, &words(&[vf.number, vf.spoof_check.into()]))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::{attributes, messages};

    #[test]
    fn a_function_is_told_as_if_link_h_has_it() {
        let vf = VirtualFunction {
            number: 3,
            mac: [2, 0, 0, 0, 0, 9],
            vlan: 7,
            spoof_check: true,
        };
        let bytes = fill(set_request(5), &vf).finish(1, 0);
        let received = messages(&bytes).next().unwrap();
        let list = attributes(&received.body[16..]).next().unwrap();
        let info = list.nested().next().unwrap();
        let found: Vec<(u16, Vec<u8>)> = info.nested().map(|a| (a.kind, a.value.to_vec())).collect();
        let mut mac = vec![3, 0, 0, 0, 2, 0, 0, 0, 0, 9];
        mac.resize(VF_MAC, 0);
        assert_eq!(list.kind, IFLA_VFINFO_LIST);
        assert_eq!(
            found,
            [
                (IFLA_VF_MAC, mac),
                (IFLA_VF_VLAN, vec![3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
                (IFLA_VF_SPOOFCHK, vec![3, 0, 0, 0, 1, 0, 0, 0]),
            ]
        );
    }

    #[test]
    fn a_vlan_beyond_the_last_is_refused() {
        let vf = VirtualFunction {
            number: 0,
            mac: [2, 0, 0, 0, 0, 9],
            vlan: 4095,
            spoof_check: true,
        };
        assert_eq!(set(1, &vf).unwrap_err().code(), "EINVAL");
    }
}
