//! `pitcrew version`.

use pitcrew_cli::{ExitStatus, Format};
use serde::Serialize;

use crate::error::Error;
use crate::output::Output;

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(crate) fn run(output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let version = env!("CARGO_PKG_VERSION");
    match output.format() {
        Format::Table => output.text(&format!("pitcrew {version}\n"))?,
        Format::Json | Format::Yaml => output.document(&Version { version })?,
    }
    Ok(ExitStatus::Fine)
}
