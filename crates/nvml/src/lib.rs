//! Real GPUs through the driver's management library (NVML): the only door to it, and the only unsafe code.
//!
//! The library is loaded at run time and never linked, so that the binary runs where there is no driver. A function
//! that this driver doesn't have fails its own call and nothing else. Everything is given back when [`Nvml`] and its
//! [`NvmlEvents`] are dropped: an open descriptor keeps a driver from being replaced.
//!
//! [`nvml_wrapper_sys`] gives the types and symbols; the safe layer over it is ours. Its companion `nvml-wrapper`
//! lacks what we need: `scopeId` of field values, the instance of an event, creating and destroying MIG instances,
//! their placements, and profiles by version.
//!
//! Calls are synchronous and may hang in a broken driver: [`Worker`] keeps callers from hanging with them, and
//! [`Relay`] asks about the other GPUs while one hangs.

mod call;
mod code;
mod device;
mod events;
mod fabric;
mod field_ids;
mod fields;
mod gpm;
mod library;
mod links;
mod mig;
mod nvlinks;
mod nvml;
mod processes;
mod progress;
mod readings;
pub mod relay;
pub mod worker;

pub use events::NvmlEvents;
pub use fields::{field_id, field_names};
pub use library::{LibraryIdentity, SONAME};
pub use nvml::{DriverChange, Nvml, Places};
pub use progress::{Asked, Progress};
pub use relay::{Patience, Relay};
pub use worker::{Stuck, Worker, WorkerSource};
