//! What was asked of the agent. Nothing in here has to be set.

use std::path::PathBuf;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of the Node.
    pub node: String,
    /// The kubelet's directory on the host.
    pub kubelet_dir: PathBuf,
    /// Where on the host CDI specifications are written.
    pub cdi_dir: PathBuf,
    /// A configuration of NVIDIA's device plugin, or a directory of them, by name.
    pub config: Option<PathBuf>,
}

impl Settings {
    /// Nothing asked for.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            kubelet_dir: "/var/lib/kubelet".into(),
            cdi_dir: "/var/run/cdi".into(),
            config: None,
        }
    }
}
