//! What a node says of itself: PCI functions, driver, distribution, container runtime, security.
//!
//! Everything is read through [`pitcrew_core::ports::HostFs`], so that a host's root that is mounted elsewhere, or an
//! imaginary one, is read as the machine's own. Parsers take text and give values; what can't be read is a
//! [`Reading`](pitcrew_core::Reading) with its reason, never a default.
#![forbid(unsafe_code)]

pub mod cdi;
pub mod containerd;
pub mod devices;
pub mod distribution;
pub mod driver;
pub mod facts;
mod foreign;
mod gather;
pub mod kubelet;
pub mod ldcache;
pub mod libraries;
pub mod packages;
pub mod pci;
pub mod process;
mod read;
pub mod releases;
pub mod root;
pub mod runtime;
pub mod security;
pub mod system;
pub mod systemd;

pub use facts::Host;
pub use root::{HostRoots, Roots};
