//! The registers of a virtio card: four structures, of which the card's capabilities say where they are.

use bifurcate_linux::card::Card;
use bifurcate_linux::pci::{Bar, Capability};
use bifurcate_linux::{Error, Result};

/// Vendor-specific: what each structure's place is told by (VIRTIO 1.2, section 4.1.4).
const CAPABILITY_VENDOR: u8 = 0x09;
/// `cfg_type` of the structures (section 4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Which structure a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What every virtio device has (section 4.1.4.3).
    Common,
    /// Whether the interrupt line was raised; reading it lowers the line (section 4.1.4.5).
    Isr,
    /// What a network device has (section 5.1.4).
    Device,
}

/// One register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) part: Part,
    pub(super) offset: u32,
    /// Bytes: each is read and written at its own width (section 4.1.3.1).
    pub(super) width: u32,
}

/// A constant of each row.
macro_rules! fields {
    ($($name:ident $part:ident $offset:literal $width:literal $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub(super) const $name: Field =
                Field { part: Part::$part, offset: $offset, width: $width };
        )*
    };
}

fields! {
    DEVICE_FEATURE_SELECT Common 0 4 "Which 32 of the device's features DEVICE_FEATURE shows.";
    DEVICE_FEATURE Common 4 4 "Features that the device offers.";
    DRIVER_FEATURE_SELECT Common 8 4 "Which 32 of the driver's features DRIVER_FEATURE shows.";
    DRIVER_FEATURE Common 12 4 "Features that the driver takes.";
    CONFIG_MSIX_VECTOR Common 16 2 "The vector of changes of the configuration.";
    NUM_QUEUES Common 18 2 "Most virtqueues.";
    DEVICE_STATUS Common 20 1 "How far the two have come; 0 resets.";
    CONFIG_GENERATION Common 21 1 "Changes when the device's part does.";
    QUEUE_SELECT Common 22 2 "Which virtqueue the following are about.";
    QUEUE_SIZE Common 24 2 "Its slots: the most at first; 0 when it is not there.";
    QUEUE_MSIX_VECTOR Common 26 2 "Its vector.";
    QUEUE_ENABLE Common 28 2 "1: it is on.";
    QUEUE_NOTIFY_OFF Common 30 2 "Where it is notified, in units of the multiplier.";
    QUEUE_DESC Common 32 4 "Its descriptors, low half; the high half is 4 bytes on.";
    QUEUE_DRIVER Common 40 4 "The driver's part.";
    QUEUE_DEVICE Common 48 4 "The device's part.";
    ISR_STATUS Isr 0 1 "Bit 0: a virtqueue; bit 1: the configuration.";
    MAC_LOW Device 0 4 "The first four bytes of the address.";
    MAC_HIGH Device 4 2 "The last two.";
    NET_STATUS Device 6 2 "Bit 0: there is a link.";
    MAX_PAIRS Device 8 2 "Most queue pairs.";
}

/// Bytes of the common structure, as the specification's first version had it.
const COMMON_LEN: u32 = 56;

/// Bits of DEVICE_STATUS (section 2.1).
pub(super) mod status {
    pub(in super::super) const ACKNOWLEDGE: u32 = 1;
    pub(in super::super) const DRIVER: u32 = 2;
    pub(in super::super) const DRIVER_OK: u32 = 4;
    pub(in super::super) const FEATURES_OK: u32 = 8;
    pub(in super::super) const NEEDS_RESET: u32 = 64;
    pub(in super::super) const FAILED: u32 = 128;
}

/// No vector (VIRTIO_MSI_NO_VECTOR, section 4.1.5.1.2).
pub(super) const NO_VECTOR: u32 = 0xffff;

/// The structures of a card: mapped, or a model's.
pub(super) trait Structures: Send + Sync {
    /// Reads a register; zero when the card has no such part.
    fn read(&self, field: Field) -> u32;
    /// Writes one.
    fn write(&self, field: Field, value: u32);
    /// Tells the card that virtqueue `queue` has something, whose QUEUE_NOTIFY_OFF is `offset`, after everything written
    /// to memory before.
    fn notify(&self, offset: u32, queue: u16);
    /// Whether the card can be told of a virtqueue with that QUEUE_NOTIFY_OFF.
    fn can_notify(&self, offset: u32) -> bool;
}

/// Where a structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bar: u8,
    offset: u32,
    len: u32,
}

/// Where all of them are, as a card's capabilities say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    common: Place,
    notify: Place,
    multiplier: u32,
    isr: Place,
    device: Place,
}

const EOPNOTSUPP: i32 = 95;

impl Places {
    /// Reads the capabilities. The first of each kind is the one to use (section 4.1.4.1).
    ///
    /// # Errors
    /// `EOPNOTSUPP` when a structure is missing, or is where none can be: a device from before VIRTIO 1.0.
    pub(super) fn of(capabilities: &[Capability]) -> Result<Places> {
        let word = |bytes: &[u8], at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let find = |kind: u8, name: &str, least: u32, align: u32| {
            let found = capabilities.iter().find_map(|one| {
                let bytes = &one.bytes[..];
                let fits =
                    one.id == CAPABILITY_VENDOR && bytes.len() >= 16 && bytes[3] == kind && bytes[4] < 6;
                let (offset, len) = (word(bytes, 8)?, word(bytes, 12)?);
                let place = Place {
                    bar: bytes[4],
                    offset,
                    len,
                };
                (fits && len >= least && offset.is_multiple_of(align)).then_some((place, word(bytes, 16)))
            });
            found.ok_or_else(|| {
                let why =
                    format!("the card's capabilities name no {name} structure: it is no VIRTIO 1.0 device");
                Error::new("virtio", why, EOPNOTSUPP)
            })
        };
        let (notify, multiplier) = find(NOTIFY, "notification", 2, 2)?;
        Ok(Places {
            common: find(COMMON, "common configuration", COMMON_LEN, 4)?.0,
            notify,
            multiplier: multiplier.unwrap_or(0),
            isr: find(ISR, "ISR", 1, 1)?.0,
            device: find(DEVICE, "device configuration", 6, 4)?.0,
        })
    }
}

/// The structures of a card, mapped.
pub(super) struct Mapped {
    bars: Vec<(u8, Bar)>,
    places: Places,
}

impl Mapped {
    /// Finds and maps them.
    ///
    /// # Errors
    /// As [`Places::of`]; `ENXIO` when one lies outside of its memory.
    pub(super) fn new(card: &Card) -> Result<Mapped> {
        let places = Places::of(&card.config().capabilities()?)?;
        let mut bars: Vec<(u8, Bar)> = Vec::new();
        for place in [places.common, places.notify, places.isr, places.device] {
            if !bars.iter().any(|(number, _)| *number == place.bar) {
                bars.push((place.bar, card.map_bar(place.bar.into())?));
            }
            let end = u64::from(place.offset) + u64::from(place.len);
            let bytes = bars.iter().find(|(number, _)| *number == place.bar);
            if bytes.is_none_or(|(_, bar)| end > bar.len() as u64) {
                let why = format!(
                    "a structure ends at byte {end:#x} of bar {}, which is shorter",
                    place.bar
                );
                return Err(Error::new("virtio", why, 6));
            }
        }
        Ok(Mapped { bars, places })
    }

    fn bar(&self, place: Place) -> &Bar {
        let found = self.bars.iter().find(|(number, _)| *number == place.bar);
        &found.expect("new() mapped the bar of each place").1
    }

    /// The register's memory, and its byte there; none beyond its structure.
    fn at(&self, field: Field) -> Option<(&Bar, usize)> {
        let place = match field.part {
            Part::Common => self.places.common,
            Part::Isr => self.places.isr,
            Part::Device => self.places.device,
        };
        let fits = field.offset + field.width <= place.len;
        fits.then(|| (self.bar(place), (place.offset + field.offset) as usize))
    }

    /// Where in the structure a notification goes (section 4.1.4.4).
    fn notify_at(&self, offset: u32) -> Option<usize> {
        let at = u64::from(offset) * u64::from(self.places.multiplier);
        let fits = at + 2 <= u64::from(self.places.notify.len) && at.is_multiple_of(2);
        fits.then(|| self.places.notify.offset as usize + at as usize)
    }
}

impl Structures for Mapped {
    fn read(&self, field: Field) -> u32 {
        match (self.at(field), field.width) {
            (Some((bar, at)), 1) => bar.read8(at).into(),
            (Some((bar, at)), 2) => bar.read16(at).into(),
            (Some((bar, at)), _) => bar.read32(at),
            (None, _) => 0,
        }
    }

    fn write(&self, field: Field, value: u32) {
        match (self.at(field), field.width) {
            (Some((bar, at)), 1) => bar.write8(at, value as u8),
            (Some((bar, at)), 2) => bar.write16(at, value as u16),
            (Some((bar, at)), _) => bar.write32(at, value),
            (None, _) => {}
        }
    }

    #[inline]
    fn notify(&self, offset: u32, queue: u16) {
        if let Some(at) = self.notify_at(offset) {
            self.bar(self.places.notify).write16(at, queue);
        }
    }

    fn can_notify(&self, offset: u32) -> bool {
        self.notify_at(offset).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(kind: u8, bar: u8, offset: u32, len: u32, multiplier: u32) -> Capability {
        let mut bytes = vec![CAPABILITY_VENDOR, 0, 20, kind, bar, 0, 0, 0];
        for word in [offset, len, multiplier] {
            bytes.extend(word.to_le_bytes());
        }
        Capability {
            id: CAPABILITY_VENDOR,
            offset: 0x40,
            bytes,
        }
    }

    fn all() -> Vec<Capability> {
        vec![
            capability(COMMON, 4, 0, 0x1000, 0),
            capability(ISR, 4, 0x1000, 0x1000, 0),
            capability(DEVICE, 4, 0x2000, 0x1000, 0),
            capability(NOTIFY, 4, 0x3000, 0x1000, 4),
            capability(COMMON, 2, 0, 0x1000, 0),
        ]
    }

    #[test]
    fn the_first_of_each_structure_is_the_one() {
        let places = Places::of(&all()).unwrap();
        assert_eq!((places.common.bar, places.multiplier), (4, 4));
        assert_eq!((places.notify.offset, places.device.offset), (0x3000, 0x2000));
    }

    #[test]
    fn a_device_without_the_structures_is_refused_by_name() {
        for (gone, name) in [(0, "common"), (1, "ISR"), (2, "device"), (3, "notification")] {
            let mut some = all();
            some.truncate(4);
            some.remove(gone);
            let error = Places::of(&some).unwrap_err();
            assert_eq!(error.code(), "EOPNOTSUPP");
            assert!(error.to_string().contains(name), "{error}");
        }
        for wrong in [
            capability(COMMON, 6, 0, 0x1000, 0),
            capability(COMMON, 4, 2, 0x1000, 0),
            capability(COMMON, 4, 0, 55, 0),
        ] {
            let mut some = all();
            some[0] = wrong;
            some.truncate(4);
            assert!(Places::of(&some).is_err());
        }
    }
}
