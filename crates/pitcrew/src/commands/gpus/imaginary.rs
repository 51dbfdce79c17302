//! Imaginary GPUs, from a built-in scenario or a file.

use std::path::Path;

use pitcrew_cli::{ExitStatus, Format};
use pitcrew_core::Inventory;
use pitcrew_core::ports::InventorySource;
use pitcrew_scenario::{Machine, Scenario, ScenarioError};
use serde::Serialize;

use crate::error::Error;
use crate::output::Output;
use crate::view::report::Source;
use crate::view::table::{Column, render};

/// There are imaginary GPUs in this build.
pub(super) const AVAILABLE: bool = true;

/// The list of built-in scenarios, as a document.
#[derive(Serialize)]
struct List {
    schema: &'static str,
    scenarios: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    description: &'static str,
}

/// Prints the built-in scenarios.
pub(super) fn list(output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let scenarios: Vec<Entry> = Scenario::builtin_names()
        .map(|(name, description)| Entry { name, description })
        .collect();
    match output.format() {
        Format::Table => {
            let columns = vec![
                Column::new("SCENARIO", scenarios.iter().map(|entry| entry.name.to_owned())),
                Column::new(
                    "DESCRIPTION",
                    scenarios.iter().map(|entry| entry.description.to_owned()),
                ),
            ];
            output.text(&render(columns, output.width()))?;
        }
        Format::Json | Format::Yaml => {
            output.document(&List {
                schema: "pitcrew.dev/scenarios/v1alpha1",
                scenarios,
            })?;
        }
    }
    Ok(ExitStatus::Fine)
}

/// What the GPUs of a scenario say, and where they come from.
pub(super) fn inventory(name: &str) -> Result<(Source, Inventory), Error> {
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
    let inventory = Machine::new(scenario).inventory().map_err(Error::Gpus)?;
    Ok((source, inventory))
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
