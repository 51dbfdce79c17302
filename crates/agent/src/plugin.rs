//! The device plugin: resources of this node on the sockets of the kubelet.
//!
//! [`Plugins`] is all that others need: it is told what there should be, and says what there is. What is pure stands
//! apart: how a container gets its devices ([`strategy`], [`answer`]), who holds what ([`holders`]).

pub mod answer;
mod directory;
mod foreign;
pub mod holders;
mod keeper;
mod ledger;
mod offer;
mod plugins;
mod registration;
mod service;
mod sockets;
pub mod strategy;
mod tell;

pub use answer::{Answer, Answers, Extras, Nodes, Shared};
pub(crate) use ledger::Ledger;
pub(crate) use offer::sickness;
pub use plugins::{Place, Plugins, Status, Wanted};
pub use sockets::is_our_socket;
pub use strategy::{Choice, Strategy};
