//! The device plugin: resources of this node on the sockets of the kubelet.
//!
//! What is pure stands apart: how a container gets its devices ([`strategy`], [`answer`], [`inject`]).

pub mod answer;
pub mod inject;
pub mod strategy;

pub use answer::{Answer, Answers, Extras, Shared};
pub use inject::Injection;
pub use strategy::{Choice, Strategy};
