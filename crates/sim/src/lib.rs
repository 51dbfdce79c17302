//! Simulated nodes: the real agent on imaginary hardware.
//!
//! [`Node`] is one worker of RKE2 or K3s with the GPUs of a scenario, a scratch directory for its files, a kubelet on real
//! sockets, and an API server in memory. Simulated parts are here; what runs on them is `pitcrew_agent::run`, unchanged.
//! There are no statics, so that many of them run in one process.
#![forbid(unsafe_code)]

pub mod chaos;
mod cluster;
mod dice;
mod driver;
mod files;
mod given;
pub mod http;
mod life;
mod mps;
mod node;
mod notices;
pub mod pods;
mod prover;
mod served;
pub mod story;
mod system;

pub use driver::{DEADLINE, Driver};
pub use files::Files;
pub use given::Given;
pub use node::{Builder, Error, Node};
pub use notices::Notices;
pub use prover::Prover;
pub use served::Served;
pub use system::{Program, System};
