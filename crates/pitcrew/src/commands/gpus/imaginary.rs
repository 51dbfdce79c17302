//! The built-in scenarios.

use pitcrew_cli::{ExitStatus, Format};
use pitcrew_scenario::Scenario;
use serde::Serialize;

use crate::error::Error;
use crate::output::Output;
use crate::view::table::{Column, render};

/// There are imaginary GPUs in this build.
pub(crate) const AVAILABLE: bool = true;

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
pub(crate) fn list(output: &mut Output<'_>) -> Result<ExitStatus, Error> {
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
