//! An imaginary node: the files of an RKE2 worker over the machine of a scenario.

use pitcrew_core::ports::HostFs;
use pitcrew_scenario::{HostRoot, Machine};

use crate::driver;
use crate::error::Error;
use crate::view::check::Source;
use crate::view::report;

/// The files of a worker with a scenario's GPUs; where it comes from is written into `source`.
pub(super) fn worker(name: &str, source: &mut Source) -> Result<Box<dyn HostFs>, Error> {
    let (from, scenario) = driver::imaginary::scenario(name)?;
    if let report::Source::Scenario { scenario, file } = from {
        source.scenario = Some(scenario);
        source.scenario_file = file;
    }
    let worker = HostRoot::over(Machine::new(scenario)).map_err(Error::Scenario)?;
    Ok(Box::new(worker))
}
