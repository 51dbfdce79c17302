//! Names that come from outside: PCI addresses, MIG profiles, cards, products. What parses must print and parse alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_core::{catalog, mig::Profile, pci::PciAddress, product};

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<PciAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(profile) = text.parse::<Profile>() {
        assert_eq!(profile.to_string().parse(), Ok(profile));
    }
    let _ = catalog::find(text);
    assert!(product::label(text).bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
});
