//! What is said of scenarios by a build without the feature `sim`, as in the image.

use pitcrew_cli::ExitStatus;

use crate::error::Error;
use crate::output::Output;

/// No imaginary GPUs here.
pub(crate) const AVAILABLE: bool = false;

pub(crate) fn list(_output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    Err(Error::NoSimulator("list".to_owned()))
}
