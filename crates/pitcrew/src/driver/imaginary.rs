//! The GPUs of a scenario.

use std::path::Path;

use pitcrew_core::Reading;
use pitcrew_core::inventory::Inventory;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::ports::{GpuError, InventorySource, Sampling};
use pitcrew_scenario::{Machine, Scenario, ScenarioError};

use super::Seen;
use crate::error::Error;
use crate::view::report::Source;

/// An imaginary machine.
#[derive(Debug, Clone)]
pub(crate) struct Imaginary {
    machine: Machine,
    source: Source,
}

impl Imaginary {
    /// From a built-in scenario or a file.
    pub(super) fn open(name: &str) -> Result<Self, Error> {
        let (source, scenario) = scenario(name)?;
        Ok(Self {
            machine: Machine::new(scenario),
            source,
        })
    }

    pub(super) fn look(&mut self) -> Result<Seen, Error> {
        let inventory: Inventory = self.machine.inventory()?;
        Ok(Seen {
            source: self.source.clone(),
            inventory,
        })
    }
}

impl Sampling for Imaginary {
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        self.machine.fields(uuid, names)
    }

    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        self.machine.nvlinks(uuid)
    }

    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        self.machine.profiling(uuid, metrics)
    }
}

/// A scenario by its name or file, and where it comes from.
pub(crate) fn scenario(name: &str) -> Result<(Source, Scenario), Error> {
    let (file, scenario) = if is_file(name) {
        (Some(name.to_owned()), Scenario::load(Path::new(name)))
    } else {
        (None, Scenario::builtin(name))
    };
    let scenario = scenario.map_err(refused)?;
    let source = Source::Scenario {
        scenario: scenario.name().to_owned(),
        file,
    };
    Ok((source, scenario))
}

/// A path, or the name of a file that is there; a built-in name wins over a file of that name.
fn is_file(name: &str) -> bool {
    let path = Path::new(name);
    let has_suffix = path
        .extension()
        .is_some_and(|suffix| suffix == "yaml" || suffix == "yml");
    let is_builtin = Scenario::builtin_names().any(|(builtin, _)| builtin == name);
    name.contains(std::path::MAIN_SEPARATOR) || has_suffix || (!is_builtin && path.is_file())
}

fn refused(error: ScenarioError) -> Error {
    match error {
        ScenarioError::Unknown { name, near } => Error::UnknownScenario { name, near },
        error => Error::Scenario(error),
    }
}
