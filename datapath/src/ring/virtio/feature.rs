//! Feature bits that the rings and the network header know, with the names that the specification has for them.

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: u64 = 1 << $bit;)*

        /// Each of them with its name.
        const NAMES: &[(u64, &str)] = &[$(($name, $text),)*];
    };
}

// VIRTIO 1.2, sections 5.1.3 and 6.
features! {
    /// The device has an address.
    MAC = 5, "VIRTIO_NET_F_MAC";
    /// The driver can merge receive buffers (section 5.1.3).
    MRG_RXBUF = 15, "VIRTIO_NET_F_MRG_RXBUF";
    /// The device says whether there is a link.
    STATUS = 16, "VIRTIO_NET_F_STATUS";
    /// There is a control queue.
    CTRL_VQ = 17, "VIRTIO_NET_F_CTRL_VQ";
    /// What is received can be chosen through it.
    CTRL_RX = 18, "VIRTIO_NET_F_CTRL_RX";
    /// The driver may send the packets that announce a guest after its migration.
    GUEST_ANNOUNCE = 21, "VIRTIO_NET_F_GUEST_ANNOUNCE";
    /// There are several queue pairs.
    MQ = 22, "VIRTIO_NET_F_MQ";
    /// The address can be set through the control queue.
    CTRL_MAC_ADDR = 23, "VIRTIO_NET_F_CTRL_MAC_ADDR";
    /// Descriptors may point to tables of descriptors (section 2.7.5.3).
    INDIRECT_DESC = 28, "VIRTIO_F_INDIRECT_DESC";
    /// Notifications are asked for by index (section 2.7.7).
    EVENT_IDX = 29, "VIRTIO_F_EVENT_IDX";
    /// The specification's first version and newer, not what came before it.
    VERSION_1 = 32, "VIRTIO_F_VERSION_1";
    /// Addresses go through an IOMMU.
    ACCESS_PLATFORM = 33, "VIRTIO_F_ACCESS_PLATFORM";
    /// The packed layout.
    RING_PACKED = 34, "VIRTIO_F_RING_PACKED";
    /// Buffers are used in the order in which they were made available (section 2.7.9).
    IN_ORDER = 35, "VIRTIO_F_IN_ORDER";
}

/// The names of those among `features` that are known here.
pub fn names(features: u64) -> impl Iterator<Item = &'static str> {
    NAMES
        .iter()
        .filter(move |(bit, _)| features & bit != 0)
        .map(|(_, name)| *name)
}

/// `features` in words, for an error: their names, and the numbers of bits that have none here.
#[must_use]
pub fn list(features: u64) -> String {
    let known = NAMES.iter().fold(0, |known, (bit, _)| known | bit);
    let unknown = (0..u64::BITS).filter(|bit| features & !known & 1 << bit != 0);
    names(features)
        .map(str::to_owned)
        .chain(unknown.map(|bit| format!("feature bit {bit}")))
        .collect::<Vec<_>>()
        .join(", ")
}
