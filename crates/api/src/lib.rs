//! Custom resources of pitcrew: [`GpuNode`], one for each node with GPUs.
//!
//! The definition is made from these types (`cargo xtask gen` writes it to `deploy/crds/`), so that what is served and
//! what is written can't differ.
#![forbid(unsafe_code)]

pub mod condition;
pub mod gpu_node;

pub use condition::{Condition, ConditionStatus};
pub use gpu_node::{GpuNode, GpuNodeSpec, GpuNodeStatus};
use kube::CustomResourceExt as _;
use serde_json::Value;

/// The custom resource definitions, as they are committed: the file's name, and the document.
///
/// # Errors
/// Where one can't be written as JSON, which no definition of ours can't.
pub fn definitions() -> Result<Vec<(String, Value)>, serde_json::Error> {
    let crd = GpuNode::crd();
    let name = crd.metadata.name.clone().unwrap_or_default();
    Ok(vec![(name, serde_json::to_value(crd)?)])
}
