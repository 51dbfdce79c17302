//! The commands, one file each.

pub(crate) mod agent;
pub(crate) mod catalog;
pub(crate) mod cdi;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod gpus;
pub(crate) mod prove;
#[cfg(feature = "sim")]
pub(crate) mod sim;
#[cfg(not(feature = "sim"))]
#[path = "sim/no_simulator.rs"]
pub(crate) mod sim;
pub(crate) mod top;
pub(crate) mod version;
