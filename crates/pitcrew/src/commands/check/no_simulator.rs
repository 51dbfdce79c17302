//! What is said of scenarios by a build without the feature `sim`, as in the image.

use pitcrew_core::ports::HostFs;

use crate::error::Error;
use crate::view::check::Source;

pub(super) fn worker(name: &str, _source: &mut Source) -> Result<Box<dyn HostFs>, Error> {
    Err(Error::NoSimulator(name.to_owned()))
}
