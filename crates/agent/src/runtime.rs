//! The node's container runtime: how a GPU reaches a container here, and what must be installed for it.
//!
//! [`assess`] says which way a GPU takes, from the host's facts alone. What is written on the node for it is planned and
//! done in [`install`], and taken away in [`uninstall`]; [`mounts`] makes the answer for runtimes that take no CDI names;
//! [`handler`] gives a containerd without a supervisor its handler, where that is asked for;
//! [`devices`] makes device nodes before GPUs work; [`restart`] restarts a supervisor where its owner allows it.

pub mod devices;
pub mod handler;
pub mod install;
pub mod lease;
pub mod mounts;
pub mod restart;
pub mod runtime_class;
pub mod tier;
pub mod toolkit_env;
pub mod uninstall;

pub use tier::{Handler, Tier, Way, assess};
