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
    /// Key of the taint that is taken off the node when it is ready: whoever sets the node up puts it there, as with
    /// RKE2's `node-taint`, to keep pods away until then. `None` touches no taint.
    pub startup_taint: Option<String>,
}

impl Settings {
    /// Nothing asked for.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            kubelet_dir: "/var/lib/kubelet".into(),
            cdi_dir: "/var/run/cdi".into(),
            config: None,
            startup_taint: Some(crate::status::STARTUP_TAINT.to_owned()),
        }
    }
}
