//! PCI addresses and identities.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// NVIDIA's PCI vendor id.
pub const NVIDIA_VENDOR_ID: u16 = 0x10de;

/// Where a device sits: domain, bus, device, function.
///
/// Written as the kernel does (`0000:3b:00.0`); the driver's library writes the domain with eight digits
/// (`00000000:3B:00.0`). Both parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain (segment), almost always 0.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device (slot) number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl Serialize for PciAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a PCI address such as `0000:3b:00.0`")]
pub struct ParsePciAddressError(String);

impl FromStr for PciAddress {
    type Err = ParsePciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let mut parts = rest.rsplit(':');
            let device = hex(parts.next()?, 2)?;
            let bus = hex(parts.next()?, 2)?;
            let domain = parts.next().map_or(Some(0), |domain| hex(domain, 8))?;
            let function = hex(function, 1)?;
            (parts.next().is_none() && device < 32 && function < 8).then_some(Self {
                domain,
                bus: u8::try_from(bus).ok()?,
                device: u8::try_from(device).ok()?,
                function: u8::try_from(function).ok()?,
            })
        };
        parse().ok_or_else(|| ParsePciAddressError(text.to_owned()))
    }
}

/// A hexadecimal number of at most `digits` digits; no sign, no blanks.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// A PCI function: where it is and what it says it is. Known without any driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PciFunction {
    /// Where it sits.
    pub address: PciAddress,
    /// Vendor id, `0x10de` for NVIDIA.
    #[serde(serialize_with = "as_hex")]
    pub vendor_id: u16,
    /// Device id, the key of the catalogue.
    #[serde(serialize_with = "as_hex")]
    pub device_id: u16,
    /// Vendor of the board.
    #[serde(serialize_with = "as_hex")]
    pub subsystem_vendor_id: u16,
    /// Board id, as its vendor numbers it.
    #[serde(serialize_with = "as_hex")]
    pub subsystem_device_id: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn as_hex<S: Serializer>(id: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:#06x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_spellings_of_a_pci_address_parse() {
        let kernel: PciAddress = "0000:3b:00.0".parse().unwrap();
        let driver: PciAddress = "00000000:3B:00.0".parse().unwrap();
        assert_eq!(kernel, driver);
        assert_eq!(kernel.to_string(), "0000:3b:00.0");
        assert_eq!("3b:00.0".parse::<PciAddress>().unwrap(), kernel);
    }

    #[test]
    fn what_is_not_a_pci_address_is_refused() {
        for text in [
            "",
            ":",
            "0000:3b:00",
            "0000:3b:20.0",
            "0000:3b:00.8",
            "x:3b:00.0",
            "1:0000:3b:00.0",
            "+3b:00.0",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in "\\PC*") {
            if let Ok(address) = text.parse::<PciAddress>() {
                prop_assert_eq!(address.to_string().parse::<PciAddress>().unwrap(), address);
            }
        }
    }
}
