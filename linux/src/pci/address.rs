//! The address of a PCI function: `domain:bus:device.function`, as in `0000:01:10.0`.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Where a PCI function sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// PCI segment.
    pub domain: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `0000:01:10.0`, or `01:10.0` of domain 0.
    fn from_str(text: &str) -> Result<Address, Error> {
        parse(text).ok_or_else(|| {
            let why =
                format!("address={text}: it is domain:bus:device.function in hexadecimal, as 0000:01:10.0");
            Error::new("pci", why, libc::EINVAL)
        })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let hex = |text: &str, digits: usize, limit: u32| {
        let plain = !text.is_empty() && text.len() <= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
        plain
            .then(|| u32::from_str_radix(text, 16).ok())
            .flatten()
            .filter(|value| *value <= limit)
    };
    Some(Address {
        domain: hex(domain, 4, 0xffff)? as u16,
        bus: hex(bus, 2, 0xff)? as u8,
        device: hex(device, 2, 31)? as u8,
        function: hex(function, 1, 7)? as u8,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_is_written() {
        for text in ["0000:01:10.0", "ffff:ff:1f.7", "0001:00:00.3"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("01:10.0".parse::<Address>().unwrap().to_string(), "0000:01:10.0");
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in [
            "",
            "eth0",
            "0000:01:20.0",
            "0000:01:10.8",
            "0000:01:10",
            "1:2:3:4.5",
            "0000:+1:10.0",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.errno, libc::EINVAL, "{text}");
            assert!(error.to_string().contains("0000:01:10.0"), "{error}");
        }
    }
}
