//! What the agent tells of its work, for logs and for the simulator's story.

use std::fmt;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it is about.
    pub topic: Topic,
    /// How much it matters.
    pub level: Level,
    /// One line: what happened, and where something is wrong, why and what to do.
    pub text: String,
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As expected.
    Info,
    /// Somebody should look.
    Warning,
    /// Something doesn't work.
    Error,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The node and its distribution.
    Node,
    /// The driver and the GPUs.
    Gpus,
    /// CDI specifications.
    Cdi,
    /// The container runtime.
    Runtime,
    /// Resources, the kubelet, allocations.
    Plugin,
    /// Health of GPUs.
    Health,
    /// Labels.
    Labels,
    /// Conditions, Events, taint.
    Status,
    /// The Multi-Process Service.
    Mps,
    /// Proofs of GPUs.
    Proof,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Gpus => "gpus",
            Self::Cdi => "cdi",
            Self::Runtime => "runtime",
            Self::Plugin => "plugin",
            Self::Health => "health",
            Self::Labels => "labels",
            Self::Status => "status",
            Self::Mps => "mps",
            Self::Proof => "proof",
        })
    }
}
