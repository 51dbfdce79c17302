//! The domain of pitcrew: what a GPU is, what can be read of it, how it can be cut up, and when it is well.
//!
//! Everything here is pure: no I/O, no async, no Kubernetes, no `unsafe`. The outside world enters through the
//! traits in [`ports`], which the `scenario` crate implements for imaginary GPUs and `nvml` for real ones.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod clocks;
pub mod document;
pub mod gpu;
pub mod health;
pub mod inventory;
pub mod labels;
pub mod mig;
pub mod nvlink;
pub mod pci;
pub mod plugin;
pub mod ports;
pub mod product;
pub mod proof;
pub mod reading;
pub mod xid;

pub use gpu::Gpu;
pub use inventory::Inventory;
pub use reading::Reading;

/// API group of pitcrew's custom resources.
///
/// The domain is not registered yet: it must be before a first release, or the group must change.
pub const API_GROUP: &str = "pitcrew.dev";
