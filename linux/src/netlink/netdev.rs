//! The generic netlink family `netdev` (Documentation/netlink/specs/netdev.yaml): what XDP an interface can.

use super::message::{Message, attributes};
use super::socket::{Protocol, Socket};
use crate::{Error, Result};

/// What an interface offers XDP programs and AF_XDP sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XdpFeatures {
    /// Names of the specification's `xdp-act` flags, e.g. `redirect`, `xsk-zerocopy`.
    pub features: Vec<&'static str>,
    /// How many buffers a frame may take in zero-copy mode; zero where there is no such mode.
    pub zero_copy_max_segments: u32,
    /// Names of the `xdp-rx-metadata` flags: `timestamp`, `hash`, `vlan-tag`.
    pub rx_metadata: Vec<&'static str>,
}

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_OPS: u16 = 6;
const CTRL_ATTR_OP_ID: u16 = 1;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
/// struct genlmsghdr: command, version, two reserved bytes.
pub(super) const GENLMSGHDR: usize = 4;
const CALL: &str = "netlink(NETDEV_CMD_DEV_GET)";

/// Bit n of the flags has name n.
const XDP_ACT: [&str; 7] = [
    "basic",
    "redirect",
    "ndo-xmit",
    "xsk-zerocopy",
    "hw-offload",
    "rx-sg",
    "ndo-xmit-sg",
];
const XDP_RX_METADATA: [&str; 3] = ["timestamp", "hash", "vlan-tag"];

/// Asks for interface `ifindex` of the calling thread's namespace; none where the kernel has no such
/// family (before 6.3).
pub fn xdp_features(ifindex: u32) -> Result<Option<XdpFeatures>> {
    let mut socket = Socket::open(Protocol::Generic)?;
    let Some(family) = family(&mut socket, "netdev")? else {
        return Ok(None);
    };
    let request =
        Message::new(family.id, 0, &[NETDEV_CMD_DEV_GET, 1, 0, 0]).number(NETDEV_A_DEV_IFINDEX, ifindex);
    let mut found = None;
    let args = format!("ifindex={ifindex}");
    socket.get(CALL, &args, request, &mut |received| {
        found = received.body.get(GENLMSGHDR..).map(read)
    })?;
    found
        .map(Some)
        .ok_or_else(|| Error::new(CALL, args, libc::ENODEV))
}

/// A generic netlink family of the running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Family {
    /// The message type that its requests carry.
    pub(super) id: u16,
    /// The commands that it knows, by number.
    pub(super) commands: Vec<u32>,
}

/// A generic netlink family by name, none when the kernel does not have it.
pub(super) fn family(socket: &mut Socket, name: &str) -> Result<Option<Family>> {
    let request =
        Message::new(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, 1, 0, 0]).string(CTRL_ATTR_FAMILY_NAME, name);
    let mut found = None;
    let answer = socket.get("netlink(CTRL_CMD_GETFAMILY)", name, request, &mut |received| {
        found = received.body.get(GENLMSGHDR..).and_then(read_family);
    });
    match answer {
        Ok(()) => Ok(found),
        Err(error) if error.errno == libc::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the attributes of a CTRL_CMD_NEWFAMILY; none without a number.
pub(super) fn read_family(bytes: &[u8]) -> Option<Family> {
    let id = attributes(bytes)
        .find(|a| a.kind == CTRL_ATTR_FAMILY_ID)?
        .number()?;
    // An array: each member is a nest of its own, its type the place in the array.
    let commands = attributes(bytes)
        .filter(|a| a.kind == CTRL_ATTR_OPS)
        .flat_map(|all| attributes(all.value))
        .filter_map(|each| each.nested().find(|a| a.kind == CTRL_ATTR_OP_ID)?.u32())
        .collect();
    Some(Family {
        id: id.try_into().ok()?,
        commands,
    })
}

pub(super) fn read(bytes: &[u8]) -> XdpFeatures {
    let mut read = XdpFeatures::default();
    for attribute in attributes(bytes) {
        let number = attribute.number().unwrap_or(0);
        match attribute.kind {
            NETDEV_A_DEV_XDP_FEATURES => read.features = names(number, &XDP_ACT),
            NETDEV_A_DEV_XDP_ZC_MAX_SEGS => read.zero_copy_max_segments = attribute.u32().unwrap_or(0),
            NETDEV_A_DEV_XDP_RX_METADATA_FEATURES => read.rx_metadata = names(number, &XDP_RX_METADATA),
            _ => {}
        }
    }
    read
}

fn names(flags: u64, table: &[&'static str]) -> Vec<&'static str> {
    table
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_with_its_commands() {
        let command = |m: Message, place, id| m.nested(place, |m| m.number(CTRL_ATTR_OP_ID, id).number(2, 2));
        let bytes = Message::new(0, 0, &[])
            .string(CTRL_ATTR_FAMILY_NAME, "netdev")
            .attribute(CTRL_ATTR_FAMILY_ID, &33u16.to_ne_bytes())
            .nested(CTRL_ATTR_OPS, |m| command(command(m, 1, 1), 2, 16))
            .finish(0, 0);
        let read = read_family(&bytes[16..]).unwrap();
        assert_eq!((read.id, read.commands), (33, vec![1, 16]));
        assert_eq!(read_family(&[]), None);
    }

    #[test]
    fn flags_become_names() {
        let bytes = Message::new(0, 0, &[])
            .attribute(NETDEV_A_DEV_XDP_FEATURES, &0b10_1011u64.to_ne_bytes())
            .number(NETDEV_A_DEV_XDP_ZC_MAX_SEGS, 17)
            .attribute(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, &0b110u64.to_ne_bytes())
            .finish(0, 0);
        let read = read(&bytes[16..]);
        assert_eq!(read.features, ["basic", "redirect", "xsk-zerocopy", "rx-sg"]);
        assert_eq!(
            (read.zero_copy_max_segments, read.rx_metadata),
            (17, vec!["hash", "vlan-tag"])
        );
    }
}
