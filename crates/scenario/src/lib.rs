//! Imaginary GPUs: a node described in YAML that behaves as a real one does, and can be changed while a program
//! runs.
//!
//! The simulator replaces the hardware and the kernel, never our logic: [`Machine`] implements the traits of
//! [`pitcrew_core::ports`] and nothing else is swapped. It starts no threads, reads no environment, keeps no
//! statics and never sleeps unless recorded latencies are switched on, so that a thousand of them run in one
//! process.
//!
//! ```
//! use pitcrew_core::ports::InventorySource;
//! use pitcrew_scenario::{Change, Machine, Scenario};
//!
//! let mut machine = Machine::new(Scenario::builtin("h100x8")?);
//! machine.change(&Change::Xid { gpu: 3, xid: 79, gpu_instance: None })?;
//! assert_eq!(machine.inventory()?.gpus.len(), 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod builtin;
pub mod calls;
mod change;
mod defaults;
mod error;
mod events;
mod facts;
pub mod format;
mod hostfs;
mod hostroot;
mod identity;
mod machine;
mod mig;
mod resolve;
mod sampling;
mod scenario;
mod state;
mod topology;
mod value;
mod view;

pub use change::{Change, ChangeError};
pub use error::{Problem, ScenarioError};
pub use events::EventQueue;
pub use facts::GpuFacts;
pub use hostroot::HostRoot;
pub use machine::Machine;
pub use mig::{ComputeInstance, GpuInstance};
pub use scenario::Scenario;
pub use value::{Value, uuid_bytes};
