//! How a GPU reaches a container on this node: what is found on it decides, never a flag.

use std::fmt;
use std::path::PathBuf;

use pitcrew_core::Reading;
use pitcrew_host::facts::{Containerd, DistributionKind};
use pitcrew_host::{Host, releases};

use super::handler::Loaded;
use crate::snapshot::Problem;

/// Name of the handler that `runtimeClassName: nvidia` leads to.
pub const HANDLER: &str = "nvidia";
/// Where RKE2 and K3s look for NVIDIA's container runtime before any other directory.
pub const TOOLKIT_DIR: &str = "/usr/local/nvidia/toolkit";

/// How a GPU reaches a container of a pod that asks for `nvidia.com/gpu` and names no runtime class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Not known yet, or the runtime is none that is known here: nothing may be handed out.
    Unknown,
    /// containerd 2.0 and later: the kubelet hands it names of CDI devices.
    Native,
    /// containerd 1.6 and 1.7, and later ones whose CDI is switched off: device nodes and mounts in the answer to the
    /// kubelet.
    Mounts,
    /// Through a handler of the runtime, which is our OCI wrapper. Never chosen by [`assess`], since the other two serve
    /// every containerd; it is what strategies `envvar` and `volume-mounts` come to.
    Handler,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Native => "native CDI",
            Self::Mounts => "device nodes and mounts",
            Self::Handler => "runtime handler",
        })
    }
}

/// The runtime handler `nvidia`, as containerd has it. That a `RuntimeClass` of that name exists says nothing of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// It is in the configuration in force, and its binary is there.
    Live {
        /// Its binary; empty where containerd's own default is meant.
        binary: PathBuf,
    },
    /// It is in the configuration in force, and its binary is gone: no such pod starts, and none that runs can be ended.
    Broken {
        /// Its binary.
        binary: PathBuf,
    },
    /// Its binary is there; the next start of the supervisor makes the handler.
    Pending {
        /// Its binary.
        binary: PathBuf,
    },
    /// There is none, and no binary that would make one.
    Absent,
    /// The configuration can't be read.
    Unknown(String),
}

/// So many pods are named where several can't start.
const NAMED: usize = 5;

/// How a GPU reaches a container on this node, and why so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// For a pod that names no runtime class.
    pub tier: Tier,
    /// Why that one, in words.
    pub reason: String,
    /// For a pod with `runtimeClassName: nvidia`.
    pub handler: Handler,
    /// True where that handler is the runtime's default, so that every container of the node needs its binary: by the
    /// configuration in force, or from the next start on.
    pub is_default: bool,
    /// The unit of systemd whose restart makes a pending handler live; `None` where it can't be told.
    pub unit: Option<String>,
}

/// The way that a GPU takes on this node.
///
/// containerd's version decides, as the node tells it, or else its release, or else the generation of the configuration
/// that was rendered for it. containerd 1.7 can be told to take CDI names, yet one that was not restarted since says
/// nothing when it is given them and starts the container without: it gets mounts, which always work.
pub fn assess(host: &Host) -> Way {
    let way = |tier, reason: String, handler| Way {
        tier,
        reason,
        handler,
        is_default: is_default(host),
        unit: unit(host),
    };
    let containerd = match &host.containerd {
        Reading::Value(containerd) => containerd,
        Reading::NotSupported => {
            let reason = "there is no containerd on this node".to_owned();
            return way(Tier::Unknown, reason, Handler::Absent);
        }
        Reading::Failed(why) => return way(Tier::Unknown, why.clone(), Handler::Unknown(why.clone())),
    };
    let (tier, reason) = tier(host, containerd);
    way(tier, reason, handler(host, containerd))
}

fn tier(host: &Host, containerd: &Containerd) -> (Tier, String) {
    let config = containerd.config.value();
    let shipped = || {
        let distribution = host.distribution.value()?;
        let shipped = releases::containerd_for(distribution.kind, distribution.version.value()?)?;
        Some((shipped.lowest.major, shipped.series()))
    };
    let by_config = || {
        let config = config.filter(|config| config.version >= 3)?;
        let series = format!("with a configuration of version {}", config.version);
        Some((2, series))
    };
    let known = match &containerd.version {
        Reading::Value(version) => Some((version.major, format!("{}.{}", version.major, version.minor))),
        _ => shipped().or_else(by_config),
    };
    let Some((major, series)) = known else {
        let why = containerd.version.failure().unwrap_or("it does not say");
        return (
            Tier::Unknown,
            format!("containerd's version can't be told: {why}"),
        );
    };
    let enabled = config.and_then(|config| config.enable_cdi);
    match (major, enabled) {
        (0 | 1, _) => {
            let reason = format!("containerd {series} does not take CDI names by itself");
            (Tier::Mounts, reason)
        }
        (_, Some(false)) => {
            let reason = "CDI is switched off in containerd's configuration".to_owned();
            (Tier::Mounts, reason)
        }
        _ => {
            let reason = format!("containerd {series} takes CDI names from the kubelet");
            (Tier::Native, reason)
        }
    }
}

/// From the configuration in force; what the supervisor would find only says whether one is pending.
fn handler(host: &Host, containerd: &Containerd) -> Handler {
    let detected = || {
        let mut detected = containerd.detected_runtimes.iter();
        detected
            .find(|(name, _)| name == HANDLER)
            .map(|(_, binary)| binary.clone())
    };
    let absent = || detected().map_or(Handler::Absent, |binary| Handler::Pending { binary });
    match &containerd.config {
        Reading::Value(config) => match config.handlers.iter().find(|(name, _)| name == HANDLER) {
            Some((_, binary)) => {
                let binary = PathBuf::from(binary);
                // RKE2 and K3s write what they detect: one that they would not detect again has lost its binary.
                let is_gone = is_supervised(host) && binary.is_absolute() && detected().is_none();
                if is_gone {
                    Handler::Broken { binary }
                } else {
                    Handler::Live { binary }
                }
            }
            None => absent(),
        },
        Reading::NotSupported => absent(),
        Reading::Failed(why) => Handler::Unknown(why.clone()),
    }
}

/// True for RKE2 and K3s, whose supervisor writes containerd's configuration at each of its starts.
pub fn is_supervised(host: &Host) -> bool {
    host.distribution.value().is_some_and(|distribution| {
        matches!(distribution.kind, DistributionKind::Rke2 | DistributionKind::K3s)
    })
}

/// True where the handler is the default of the runtime, by the configuration in force or from the next start on.
pub(super) fn is_default(host: &Host) -> bool {
    let now = host
        .containerd
        .value()
        .and_then(|containerd| containerd.config.value()?.default_handler.as_deref());
    let next = host
        .distribution
        .value()
        .and_then(|distribution| distribution.default_runtime.value());
    now == Some(HANDLER) || next.is_some_and(|name| name == HANDLER)
}

fn unit(host: &Host) -> Option<String> {
    host.distribution.value()?.unit.value().cloned()
}

impl Way {
    /// The same of a containerd that has, or hasn't, read its configuration since the agent has changed it.
    #[must_use]
    pub fn since(mut self, loaded: Loaded) -> Self {
        if let Handler::Live { binary } = &self.handler {
            match loaded {
                Loaded::Yes => {}
                Loaded::NotYet => {
                    self.handler = Handler::Pending {
                        binary: binary.clone(),
                    };
                }
                Loaded::Unknown => {
                    let why =
                        "whether containerd was restarted since its configuration was changed can't be told";
                    self.handler = Handler::Unknown(why.to_owned());
                }
            }
        }
        self
    }

    /// What keeps pods with `runtimeClassName: nvidia` from starting here, if any of them are bound to this node (their
    /// names, `namespace/name`, may be empty where they aren't known).
    pub fn problem(&self, pods: &[String]) -> Option<Problem> {
        let concerned = match pods {
            [] => "pods with `runtimeClassName: nvidia`".to_owned(),
            [pod] => format!("the pod {pod}"),
            pods if pods.len() <= NAMED => format!("the pods {}", pods.join(", ")),
            pods => {
                let (named, others) = pods.split_at(NAMED);
                format!("the pods {} and {} more", named.join(", "), others.len())
            }
        };
        let restart = match self.unit.as_deref() {
            Some(unit) => format!("systemctl restart {unit}"),
            None => "restart the container runtime of this node".to_owned(),
        };
        match &self.handler {
            Handler::Pending { binary } => Some(Problem {
                reason: "HandlerPending".to_owned(),
                message: format!(
                    "{concerned} can't start on this node yet: `{}` is there, and the container runtime takes it up at its \
                     next start",
                    binary.display()
                ),
                hint: restart,
            }),
            Handler::Broken { binary } => Some(Problem {
                reason: "HandlerBroken".to_owned(),
                message: format!(
                    "{concerned} can't start on this node: its handler is `{}`, which is gone",
                    binary.display()
                ),
                hint: format!("put the binary back (the agent does so where it wrote it), or {restart}"),
            }),
            Handler::Absent if !pods.is_empty() => Some(Problem {
                reason: "HandlerMissing".to_owned(),
                message: format!(
                    "{concerned} can't start on this node: its container runtime has no handler `{HANDLER}`"
                ),
                hint: "leave out `runtimeClassName`: a pod that asks for `nvidia.com/gpu` needs none here"
                    .to_owned(),
            }),
            Handler::Absent | Handler::Live { .. } | Handler::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
