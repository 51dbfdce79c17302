//! What was asked of the agent. Nothing in here has to be set.

use std::path::PathBuf;
use std::time::Duration;

use pitcrew_core::plugin::config::Overrides;

use crate::config::Sources;
use crate::health::{PROBATION, XidFilter};
use crate::labels::SinkKind;
use crate::mps::Policy;
use crate::proof;
use crate::runtime::restart::Consent;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of the Node.
    pub node: String,
    /// The kubelet's directory on the host.
    pub kubelet_dir: PathBuf,
    /// Where on the host CDI specifications are written.
    pub cdi_dir: PathBuf,
    /// Where configurations of NVIDIA's device plugin come from, and which counts.
    pub sources: Sources,
    /// What was asked for besides them, and stands above them.
    pub overrides: Overrides,
    /// The static program of CDI hooks and wrapper, on the agent's own file system, and the version that it is installed
    /// as.
    pub hook: Hook,
    /// Variables that NVIDIA's container toolkit knows, as `toolkit.env` of its chart sets them.
    pub toolkit_env: Vec<(String, String)>,
    /// Which restarts of the node's supervisor are allowed.
    pub consent: Consent,
    /// Whether a containerd that nobody renders a configuration for is given the handler `nvidia`.
    pub configure_containerd: bool,
    /// Where labels are written; `None` for what the configuration says, see [`crate::labels::Outlet::of`].
    pub labels: Option<SinkKind>,
    /// Which XIDs make a GPU sick.
    pub xids: XidFilter,
    /// How long a sick GPU must be well before it is handed out again.
    pub probation: Duration,
    /// What is done to the compute mode of GPUs that are shared through MPS.
    pub mps_compute_mode: Policy,
    /// What is asked for of proofs, where the `GpuNode` says nothing else.
    pub proof: proof::Policy,
    /// True where the node's GPUs are imaginary: so must be those of reports that count.
    pub imaginary: bool,
    /// How often things are looked at.
    pub pace: Pace,
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
            sources: Sources::default(),
            overrides: Overrides::default(),
            hook: Hook {
                binary: "/usr/bin/pitcrew-hook".into(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            toolkit_env: Vec::new(),
            consent: Consent::default(),
            configure_containerd: false,
            labels: None,
            xids: XidFilter::default(),
            probation: PROBATION,
            mps_compute_mode: Policy::default(),
            proof: proof::Policy::default(),
            imaginary: false,
            pace: Pace::default(),
            startup_taint: Some(crate::status::STARTUP_TAINT.to_owned()),
        }
    }
}

/// The static program of CDI hooks and wrapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where it is on the agent's own file system.
    pub binary: PathBuf,
    /// Name of the directory that it is installed into.
    pub version: String,
}

/// How often things are looked at. Whatever tells of itself (events of GPUs, the API server, the kubelet's socket) is
/// heard at once all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two glances at the host's files that tell of a change: a few dozen small files, no call of the driver.
    pub glance: Duration,
    /// Between two looks at all GPUs while all is well. A look is hundreds of calls of the driver.
    pub look: Duration,
    /// Between two looks while something is not well, or no driver answers.
    pub look_closely: Duration,
    /// Between two times that all of the host's facts are gathered.
    pub gather: Duration,
    /// How long a driver may be away, as while it is replaced, before its CDI specifications are taken away.
    pub driver_away: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            glance: Duration::from_secs(2),
            look: Duration::from_mins(1),
            look_closely: Duration::from_secs(5),
            gather: Duration::from_mins(5),
            driver_away: Duration::from_mins(2),
        }
    }
}
