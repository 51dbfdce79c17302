//! The catalogue of GPUs: what each card is, what it should reach, and what it can be asked to do.
//!
//! The data is `data/gpus.csv`, one line a card. Datasheet figures are the vendor's; expected figures say what they
//! rest on (`*_basis`). Lookup goes by PCI device id first, then by product name.

mod compute_capability;
mod driver;
mod parse;
mod search;
mod sharing;

use std::fmt;
use std::sync::LazyLock;

use serde::{Serialize, Serializer};

pub use compute_capability::{ComputeCapability, ParseComputeCapabilityError};
pub use driver::{DriverSupport, KernelModules, UnsupportedDriver};
pub use search::{LookupError, find, lookup};
pub use sharing::{Isolation, max_mps_clients};

/// One card.
#[derive(Debug, Clone, Serialize)]
pub struct Card {
    /// Our name for it, unique in the catalogue.
    pub name: String,
    /// Regular expression that the driver's product name matches.
    #[serde(skip)]
    pub name_pattern: String,
    /// PCI device id. Two pairs of cards share one.
    #[serde(serialize_with = "as_hex")]
    pub pci_device_id: u16,
    /// Architecture.
    pub architecture: Architecture,
    /// CUDA compute capability.
    pub compute_capability: ComputeCapability,
    /// Market that it was made for.
    pub class: Class,
    /// Memory in GB, as on the box.
    pub memory_gb: u32,
    /// Kind of memory, e.g. `HBM3`.
    pub memory_type: String,
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Boost clock in MHz.
    pub boost_mhz: u32,
    /// Datasheet FP32 rate in TFLOP/s, without tensor cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fp32_tflops: Option<f64>,
    /// Datasheet dense tensor rate in TFLOP/s with FP32 accumulation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor_tflops: Option<f64>,
    /// Number format of [`Card::tensor_tflops`].
    pub tensor_dtype: String,
    /// Datasheet dense FP8 tensor rate in TFLOP/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fp8_tflops: Option<f64>,
    /// Datasheet memory bandwidth in GB/s.
    pub memory_bandwidth_gbs: f64,
    /// Board power in watts.
    pub tdp_w: u32,
    /// PCIe generation.
    pub pcie_gen: u32,
    /// PCIe lanes.
    pub pcie_width: u32,
    /// Expected copy rate from pinned host memory in GB/s; none where the CPU isn't behind PCIe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_pcie_gbs: Option<f64>,
    /// `NVLink` bandwidth of all links in both directions, in GB/s; 0 for a card without.
    pub nvlink_gbs: u32,
    /// Most MIG instances; 0 for a card without MIG.
    pub mig_max_instances: u32,
    /// Dense tensor rate in TFLOP/s that a healthy card reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_tensor_tflops: Option<f64>,
    /// What [`Card::expected_tensor_tflops`] rests on.
    pub expected_tensor_basis: String,
    /// Memory bandwidth in GB/s that a healthy card reaches in a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_memory_gbs: Option<f64>,
    /// What [`Card::expected_memory_gbs`] rests on.
    pub expected_memory_basis: String,
    /// Where the figures come from.
    pub source: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn as_hex<S: Serializer>(id: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:#06x}"))
}

/// GPU architectures, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Compute capability 5.
    Maxwell,
    /// Compute capability 6.
    Pascal,
    /// Compute capability 7.0.
    Volta,
    /// Compute capability 7.5.
    Turing,
    /// Compute capability 8.0 and 8.6.
    Ampere,
    /// Compute capability 8.9.
    Ada,
    /// Compute capability 9.0.
    Hopper,
    /// Compute capability 10 and 12.
    Blackwell,
}

impl Architecture {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Maxwell, "Maxwell"),
        (Self::Pascal, "Pascal"),
        (Self::Volta, "Volta"),
        (Self::Turing, "Turing"),
        (Self::Ampere, "Ampere"),
        (Self::Ada, "Ada"),
        (Self::Hopper, "Hopper"),
        (Self::Blackwell, "Blackwell"),
    ];

    /// Value of the label `nvidia.com/gpu.family`, as GPU Feature Discovery spells it.
    pub fn gfd_family(self) -> &'static str {
        match self {
            Self::Maxwell => "maxwell",
            Self::Pascal => "pascal",
            Self::Volta => "volta",
            Self::Turing => "turing",
            Self::Ampere => "ampere",
            Self::Ada => "ada-lovelace",
            Self::Hopper => "hopper",
            Self::Blackwell => "blackwell",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(architecture, _)| architecture == self)
            .map_or("", |(_, name)| name);
        f.pad(name)
    }
}

/// Market that a card was made for. It decides about ECC, MIG, NVLink and power management.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// `GeForce`.
    Consumer,
    /// Quadro, RTX and RTX PRO.
    Workstation,
    /// Tesla and what followed it.
    Datacentre,
}

impl Class {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Consumer, "consumer"),
        (Self::Workstation, "workstation"),
        (Self::Datacentre, "datacentre"),
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(class, _)| class == self)
            .map_or("", |(_, name)| name);
        f.pad(name)
    }
}

/// All cards, in the order of the file: by architecture, then by market.
pub fn all() -> &'static [Card] {
    static CARDS: LazyLock<Vec<Card>> = LazyLock::new(|| parse::cards(include_str!("../data/gpus.csv")));
    &CARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_file_is_a_card() {
        let lines = include_str!("../data/gpus.csv").lines().count() - 1;
        assert_eq!(all().len(), lines);
        assert_eq!(lines, 80);
    }

    #[test]
    fn architecture_and_compute_capability_agree() {
        for card in all() {
            let expected = match (card.compute_capability.major, card.compute_capability.minor) {
                (5, _) => Architecture::Maxwell,
                (6, _) => Architecture::Pascal,
                (7, 0) => Architecture::Volta,
                (7, 5) => Architecture::Turing,
                (8, 0 | 6) => Architecture::Ampere,
                (8, 9) => Architecture::Ada,
                (9, 0) => Architecture::Hopper,
                (10 | 12, _) => Architecture::Blackwell,
                other => panic!("{}: {other:?}", card.name),
            };
            assert_eq!(card.architecture, expected, "{}", card.name);
        }
    }

    #[test]
    fn expected_figures_are_below_the_datasheet() {
        for card in all() {
            if let (Some(expected), Some(datasheet)) = (card.expected_tensor_tflops, card.tensor_tflops) {
                assert!(expected <= datasheet, "{}: {expected} > {datasheet}", card.name);
            }
            if let Some(expected) = card.expected_memory_gbs {
                assert!(expected <= card.memory_bandwidth_gbs, "{}: {expected}", card.name);
            }
            assert!(
                card.tdp_w > 0 && card.sm_count > 0 && card.memory_gb > 0,
                "{}",
                card.name
            );
        }
    }
}
