//! Where a figure begins to be low, and where bad; and what cards reach, by whoever has measured them.

mod card;
mod read;

use serde::{Deserialize, Serialize};

use super::expected::{self, Expected};
use super::{Device, Format, Grade};

pub use card::CardFigures;
pub use read::{MAX_THRESHOLDS_BYTES, ThresholdsError, parse_thresholds};

/// Two borders of a ratio: below the first it is low, below the second bad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Borders {
    /// Below it, a warning.
    pub warn: f64,
    /// Below it, a failure where the figure can be one.
    pub fail: f64,
}

impl Borders {
    /// The grade of a ratio.
    pub fn grade(self, ratio: f64) -> Grade {
        if ratio < self.fail {
            Grade::Bad
        } else if ratio < self.warn {
            Grade::Low
        } else {
            Grade::Good
        }
    }
}

/// All borders. The usual ones are those of fact sheet `prove`, section 6.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    /// Efficiency of the SMs at their clock, as a part of what a healthy chip has with the same kernels.
    pub pipe_efficiency: Borders,
    /// Products, as a part of what the card should reach.
    pub tensor: Borders,
    /// Memory.
    pub memory: Borders,
    /// Copies over PCIe.
    pub pcie: Borders,
    /// Copies over NVLink.
    pub nvlink: Borders,
    /// One SM, as a part of the median of all.
    pub sm: f64,
    /// PCIe packets sent again in one run that are nothing special.
    pub pcie_replays: u64,
    /// Wrong checksums on one NVLink that are nothing special, in each minute of a run.
    pub nvlink_crc: u64,
    /// What cards reach, instead of what the catalogue says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<CardFigures>,
}

impl Default for Thresholds {
    fn default() -> Self {
        let borders = |warn, fail| Borders { warn, fail };
        Self {
            pipe_efficiency: borders(0.90, 0.80),
            tensor: borders(0.85, 0.70),
            memory: borders(0.92, 0.80),
            pcie: borders(0.85, 0.60),
            nvlink: borders(0.85, 0.60),
            sm: 0.90,
            pcie_replays: 80,
            nvlink_crc: 100,
            cards: Vec::new(),
        }
    }
}

/// What a device should reach: as told here, else by the catalogue.
impl Thresholds {
    /// What is told here of the card that a device is or is a part of; the first entry counts.
    fn card(&self, device: &Device) -> Option<&CardFigures> {
        self.cards.iter().find(|card| card.is_of(device))
    }

    /// TFLOP/s of large products.
    pub(super) fn expected_product(
        &self,
        device: &Device,
        format: Format,
        variant: &str,
    ) -> Option<Expected> {
        let told = || {
            let value = *self.card(device)?.products_tflops.get(&format)?;
            let told = Expected::told(value);
            if expected::is_best(device, format, variant) {
                return Some(told);
            }
            let part = expected::part_of_best(device, format, variant)?;
            Some(told.estimated(part, &format!("{format} by {variant}")))
        };
        match told() {
            Some(of_card) => expected::of_sms(device, of_card),
            None => expected::product(device, format, variant),
        }
    }

    /// GB/s of memory in a copy or triad.
    pub(super) fn expected_memory(&self, device: &Device) -> Option<Expected> {
        match self.card(device).and_then(|card| card.memory_gbs) {
            Some(value) => Some(expected::of_slices(device, Expected::told(value))),
            None => expected::memory(device),
        }
    }

    /// GB/s of copies between pinned host memory and the GPU, one way.
    pub(super) fn expected_host(&self, device: &Device) -> Option<Expected> {
        let told = self.card(device).and_then(|card| card.pcie_gbs);
        told.map(Expected::told).or_else(|| expected::host(device))
    }

    /// GB/s from one GPU to another over NVLink, one way.
    pub(super) fn expected_nvlink(&self, device: &Device) -> Option<Expected> {
        let told = self.card(device).and_then(|card| card.nvlink_gbs);
        told.map(Expected::told).or_else(|| expected::nvlink(device))
    }
}
