//! Conditions: those of Kubernetes, and what to do next.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of conditions of a [`GpuNode`](crate::GpuNode).
pub mod kind {
    /// Everything that a pod needs to get a GPU here: [`DRIVER_READY`], [`RUNTIME_READY`] and [`DEVICES_ADVERTISED`].
    pub const READY: &str = "Ready";
    /// The driver answers.
    pub const DRIVER_READY: &str = "DriverReady";
    /// The container runtime can give a GPU to a container.
    pub const RUNTIME_READY: &str = "RuntimeReady";
    /// The kubelet knows the devices of every resource of the node.
    pub const DEVICES_ADVERTISED: &str = "DevicesAdvertised";
    /// No GPU is sick.
    pub const HEALTHY: &str = "Healthy";
    /// The GPUs have returned verified results at load.
    pub const PROVEN: &str = "Proven";

    /// All of them, in the order in which to read them.
    pub const ALL: [&str; 6] = [
        READY,
        DRIVER_READY,
        RUNTIME_READY,
        DEVICES_ADVERTISED,
        HEALTHY,
        PROVEN,
    ];
}

/// One condition. The fields are those of `metav1.Condition`, and a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, in camel case, e.g. `DriverReady`.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word of camel case, for programs.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// The next command or step; absent where there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub hint: Option<String>,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// The `metadata.generation` that it was judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It doesn't.
    False,
    /// It can't be told.
    Unknown,
}

impl std::fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        })
    }
}
