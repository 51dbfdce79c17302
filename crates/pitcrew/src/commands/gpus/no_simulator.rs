//! What is said of scenarios by a build without the feature `sim`, as in the image.

use pitcrew_cli::ExitStatus;
use pitcrew_core::Inventory;

use crate::error::Error;
use crate::output::Output;
use crate::view::report::Source;

/// No imaginary GPUs here.
pub(super) const AVAILABLE: bool = false;

pub(super) fn list(_output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    inventory("list").map(|(_, _)| ExitStatus::Fine)
}

pub(super) fn inventory(name: &str) -> Result<(Source, Inventory), Error> {
    Err(Error::NoSimulator(name.to_owned()))
}
