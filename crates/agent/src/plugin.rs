//! The device plugin: resources of this node on the sockets of the kubelet.
//!
//! What is pure stands apart: how a container gets its devices ([`strategy`], [`answer`]).

pub mod answer;
pub mod strategy;

pub use answer::{Answer, Answers, Extras, Nodes, Shared};
pub use strategy::{Choice, Strategy};
