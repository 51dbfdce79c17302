//! A scenario: a checked description of one imaginary node.

use std::path::Path;

use pitcrew_core::catalog::Card;
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::{CudaVersion, Link};
use pitcrew_core::pci::PciFunction;

use crate::builtin;
use crate::calls::Latencies;
use crate::error::{ScenarioError, nearest};
use crate::resolve;
use crate::state::Override;

/// A checked description of one imaginary node; [`crate::Machine`] brings it to life.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) driver: DriverSpec,
    pub(crate) gpus: Vec<GpuSpec>,
    pub(crate) links: Vec<Link>,
    pub(crate) nvswitch: bool,
    pub(crate) hangs: Vec<String>,
}

/// The driver at the start.
#[derive(Debug, Clone)]
pub(crate) struct DriverSpec {
    pub(crate) version: String,
    pub(crate) cuda: CudaVersion,
    pub(crate) open_kernel_modules: bool,
    pub(crate) fault: Option<String>,
}

/// One GPU at the start. Its identity is filled in by the machine, from the node's name.
#[derive(Debug, Clone)]
pub(crate) struct GpuSpec {
    pub(crate) card: &'static Card,
    pub(crate) pci: PciFunction,
    pub(crate) numa_node: u32,
    pub(crate) readings: GpuReadings,
    pub(crate) overrides: std::collections::BTreeMap<&'static str, Override>,
    pub(crate) mig: Vec<resolve::WantedDevice>,
    pub(crate) lost: bool,
    pub(crate) fields: std::collections::BTreeMap<String, u64>,
    pub(crate) gpm: std::collections::BTreeMap<u32, f64>,
    pub(crate) latencies: Latencies,
}

impl Scenario {
    /// Names and descriptions of the built-in scenarios, in the order in which to show them.
    pub fn builtin_names() -> impl Iterator<Item = (&'static str, &'static str)> {
        builtin::SCENARIOS
            .iter()
            .map(|(name, text)| (*name, builtin::description(text)))
    }

    /// A built-in scenario.
    pub fn builtin(name: &str) -> Result<Self, ScenarioError> {
        let found = builtin::SCENARIOS.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| ScenarioError::Unknown {
            name: name.to_owned(),
            near: nearest(name, builtin::SCENARIOS.iter().map(|(known, _)| *known)),
        })?;
        Self::parse(text, name)
    }

    /// Reads a scenario from YAML; `source_name` is what messages call it, and what identities follow from.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ScenarioError> {
        resolve::scenario(text, source_name)
    }

    /// Reads a scenario from a file. Its name is the file's, without the directory and `.yaml`.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let mut scenario = Self::parse(&text, &path.display().to_string())?;
        if let Some(stem) = path.file_stem() {
            scenario.name = stem.to_string_lossy().into_owned();
        }
        Ok(scenario)
    }

    /// The same hardware in another node: UUIDs and serial numbers that the scenario doesn't give are made from
    /// this name too, so that the nodes of a simulated cluster differ.
    #[must_use]
    pub fn for_node(mut self, node: &str) -> Self {
        self.name = format!("{}/{node}", self.name);
        self
    }

    /// Its name: that of the built-in, or of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }
}
