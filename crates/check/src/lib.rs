//! Whether a node is ready for GPU pods: facts to findings to advice. Pure: it reads nothing and changes nothing.
//!
//! [`check()`] judges a node as it is, [`upgrade::plan`] what an upgrade would change on it.
#![forbid(unsafe_code)]

mod advice;
mod node;
mod path;
mod report;
mod rules;
#[cfg(test)]
mod sample;
pub mod upgrade;

pub use path::{GpuPath, Handler, Tier};
use pitcrew_core::Inventory;
use pitcrew_core::ports::GpuError;
use pitcrew_host::Host;
pub use report::{Counts, Finding, Outcome, Report, Topic, Verdict};

/// Judges a node by its facts and by what its driver answered.
pub fn check(host: &Host, gpus: Result<&Inventory, &GpuError>) -> Report {
    let node = node::Node::new(host, gpus);
    let findings = rules::all().flat_map(|rule| rule(&node)).collect();
    Report::new(path::of(host), findings)
}
