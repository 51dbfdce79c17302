//! What the agent knows of its node at one moment: the one value that its parts are given.
//!
//! The main loop ([`crate::run`](mod@crate::run)) makes it and sends it through a `tokio::sync::watch` channel; labels,
//! status and metrics only read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pitcrew_core::Inventory;
use pitcrew_core::plugin::Resource;
use pitcrew_core::plugin::holders::Blocked;
use pitcrew_core::ports::GpuError;
use pitcrew_host::facts::Host;

/// What is known of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The host's facts; `None` before the first look.
    pub host: Option<Arc<Host>>,
    /// The GPUs, or why they can't be read; `None` before the first look.
    pub gpus: Option<Result<Arc<Inventory>, GpuError>>,
    /// GPUs that must not be used, by UUID, with the reason.
    pub sick: BTreeMap<String, String>,
    /// Which pods hold a GPU or a part of it, as `namespace/name`, by the GPU's UUID; a GPU that nobody holds may be
    /// absent. `None` where the kubelet could not be asked.
    pub held: Option<BTreeMap<String, BTreeSet<String>>>,
    /// The resources that the node should have.
    pub resources: Vec<Resource>,
    /// Names of resources that the kubelet has taken, and whose devices it was told.
    pub registered: BTreeSet<String>,
    /// Ids that the kubelet is told to be unhealthy, by resource, with the reason: of a sick GPU, held in another form,
    /// or such that no container could start with them.
    pub unhealthy: Blocked,
    /// How containers get their GPUs here.
    pub tier: crate::runtime::Tier,
    /// Why a part doesn't work at the moment, by part; empty is well.
    pub problems: BTreeMap<Part, Problem>,
    /// What is to know of a part that works, by part.
    pub remarks: BTreeMap<Part, Problem>,
    /// What there is of proofs.
    pub proof: Arc<crate::proof::View>,
}

/// Parts of the agent that can have a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The driver.
    Driver,
    /// The container runtime.
    Runtime,
    /// CDI specifications.
    Specs,
    /// The configuration of the device plugin.
    Config,
    /// The kubelet and registration.
    Plugin,
    /// The Multi-Process Service.
    Mps,
    /// Labels.
    Labels,
}

/// Why something doesn't work, as in a condition of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One word in camel case, e.g. `HandlerPending`.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// The next command or step.
    pub hint: String,
}
