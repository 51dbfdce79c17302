//! What is said of imaginary nodes by a build without the feature `sim`, as in the image.

use pitcrew_cli::{ExitStatus, GlobalArgs, SimArgs};

use crate::error::Error;
use crate::output::Output;

/// No imaginary nodes here.
pub(crate) fn run(
    args: &SimArgs,
    _global: &GlobalArgs,
    _output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    Err(Error::NoSimulator(args.scenario.clone()))
}
