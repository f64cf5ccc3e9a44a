//! What senders leave to the card, and what a card can send: the facts by which a loop completes frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Work that the senders of a queue's frames may have left undone, since on their side it looked as if a card
/// would do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftToCard {
    /// Transport checksums: the field holds the pseudo-header's sum.
    pub checksums: bool,
    /// TCP segmentation: a frame may be longer than any packet.
    pub segments: bool,
}

impl LeftToCard {
    /// Frames are as they were on a wire.
    pub const NOTHING: LeftToCard = LeftToCard {
        checksums: false,
        segments: false,
    };

    /// All of it.
    pub const EVERYTHING: LeftToCard = LeftToCard {
        checksums: true,
        segments: true,
    };

    /// Whether anything may be left.
    #[must_use]
    pub fn anything(self) -> bool {
        self != LeftToCard::NOTHING
    }
}

/// Drivers (`ethtool -i`) whose frames come from the memory of this host or of its hypervisor, never from a wire:
/// their senders leave work to a card that is not there.
const VIRTUAL: [&str; 13] = [
    "veth",
    "netkit",
    "tun",
    "bridge",
    "bonding",
    "team",
    "macvlan",
    "ipvlan",
    "openvswitch",
    "virtio_net",
    // xen-netfront, as its bus calls it.
    "vif",
    "vmxnet3",
    "hv_netvsc",
];

/// Whether the senders behind a device of that driver may leave work to the card.
#[must_use]
pub fn is_virtual(driver: &str) -> bool {
    VIRTUAL.contains(&driver)
}

/// The largest packet of an interface, in bytes without its link header. Shared with whoever hears that it
/// changed while the interface is open.
#[derive(Clone, Debug)]
pub struct Mtu(Arc<AtomicU32>);

impl Mtu {
    /// Begins with `bytes`.
    #[must_use]
    pub fn new(bytes: u32) -> Mtu {
        Mtu(Arc::new(AtomicU32::new(bytes)))
    }

    /// It now.
    #[must_use]
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Tells every holder the new one.
    pub fn set(&self, bytes: u32) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::is_virtual;

    #[test]
    fn cards_on_a_wire_are_not_virtual() {
        assert!(
            ["veth", "tun", "virtio_net", "vmxnet3"]
                .into_iter()
                .all(is_virtual)
        );
        assert!(
            !["igb", "ice", "mlx5_core", "e1000e", "loopback", ""]
                .into_iter()
                .any(is_virtual)
        );
    }
}
