//! IPv6 settings of a link that rtnetlink carries.

use super::message::Message;
use super::socket::{Protocol, Socket};
use crate::Result;

const RTM_SETLINK: u16 = 19;
// linux/if_link.h
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// Lets link `index` of the calling thread's namespace make itself no IPv6 address when it goes up. A kernel
/// without IPv6 would make none, and is no error.
pub fn no_own_address(index: u32) -> Result<()> {
    // struct ifinfomsg: family, type, index, flags, change.
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(RTM_SETLINK, 0, &body).nested(IFLA_AF_SPEC, |families| {
        families.nested(libc::AF_INET6 as u16, |inet6| {
            inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE])
        })
    });
    let args = format!("ifindex={index} inet6 addr_gen_mode=none");
    match Socket::open(Protocol::Route)?.change("netlink(RTM_SETLINK)", &args, message) {
        Err(error) if error.errno == libc::EAFNOSUPPORT => Ok(()),
        done => done,
    }
}
