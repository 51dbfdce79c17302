//! Finds GPUs on a node's PCI bus and says so in the labels of its Node, by which the agent comes there.
//!
//! It runs on every Linux node, most of which have no GPU: it needs no privilege but to read `/sys`, no driver, and next
//! to no memory. That is why it speaks to the API server itself, one short connection now and then, with neither an
//! asynchronous runtime nor a Kubernetes client.
#![forbid(unsafe_code)]

pub mod http;
pub mod labels;
pub mod run;
pub mod server;

pub use run::{Notice, Stop, run};
pub use server::{Error, Nodes, Server};
