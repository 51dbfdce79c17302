//! The node agent: one process that gets the GPUs of a node into its pods.
//!
//! [`run`] does everything, with what [`Deps`] gives it: it reads no environment, starts no thread, keeps nothing in
//! statics and never ends the process, so that many of them run in one. It knows neither NVML nor scenarios.
#![forbid(unsafe_code)]

pub mod config;
pub mod deps;
mod dir;
pub mod health;
pub mod labels;
pub mod mps;
pub mod node;
pub mod notice;
pub mod plugin;
pub mod proof;
pub mod run;
pub mod runtime;
pub mod settings;
pub mod snapshot;
pub mod specs;
pub mod status;
#[cfg(test)]
mod testing;

pub use deps::Deps;
pub use notice::{Notice, Topic};
pub use run::run;
pub use settings::Settings;
