//! What a card reaches, by whoever has measured it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::proof::{Device, Format};

/// Figures of a healthy card, instead of the catalogue's. What isn't told is the catalogue's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CardFigures {
    /// Its name, as the driver or the catalogue has it; whatever the case of the letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its PCI device id, e.g. `0x2330`. Where name and id are given, both must fit.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "crate::proof::device::hex_id"
    )]
    pub pci_device_id: Option<u16>,
    /// Large products in TFLOP/s, by number format, with the best kernels that the card has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub products_tflops: BTreeMap<Format, f64>,
    /// Memory in a copy or triad, in GB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gbs: Option<f64>,
    /// Copies between pinned host memory and the GPU, one way, in GB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_gbs: Option<f64>,
    /// Copies to another GPU over NVLink, one way, in GB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_gbs: Option<f64>,
}

impl CardFigures {
    /// Whether a device is such a card, or a part of one.
    pub(super) fn is_of(&self, device: &Device) -> bool {
        let is_named = |name: &String| {
            let in_catalogue = device.card().map(|card| &*card.name);
            device.name.eq_ignore_ascii_case(name)
                || in_catalogue.is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        let has_id = |id: u16| device.pci_device_id == Some(id);
        match (&self.name, self.pci_device_id) {
            (None, None) => false,
            (name, id) => name.as_ref().is_none_or(is_named) && id.is_none_or(has_id),
        }
    }
}
