//! The node's container runtime: how a GPU reaches a container here, and what must be installed for it.
//!
//! [`assess`] says which way a GPU takes, from the host's facts alone. [`mounts`] makes the answer
//! for runtimes that take no CDI names.

pub mod mounts;
pub mod tier;

pub use tier::{Handler, Tier, Way, assess};
