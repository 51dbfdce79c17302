//! How a GPU reaches a container on this node: the tiers of the design.

use std::fmt;

use pitcrew_core::Reading;
use pitcrew_host::facts::{Containerd, ContainerdConfig, DistributionKind};
use pitcrew_host::{Host, releases};
use semver::Version;
use serde::Serialize;

/// How a GPU reaches a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuPath {
    /// The way for a pod that asks for `nvidia.com/gpu` and names no runtime class.
    pub tier: Tier,
    /// Why this one.
    pub reason: String,
    /// The way for a pod with `runtimeClassName: nvidia`.
    pub handler: Handler,
}

/// Ways for a GPU into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The container runtime takes CDI names from the device plugin.
    Native,
    /// The device plugin answers device nodes and mounts of the driver's libraries.
    Mounts,
    /// There is no container runtime.
    None,
    /// The version of the container runtime is not known.
    Unknown,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native CDI",
            Self::Mounts => "device nodes and mounts",
            Self::None => "none",
            Self::Unknown => "unknown",
        })
    }
}

/// The runtime handler `nvidia`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handler {
    /// It is in the configuration, and its binary is there.
    Live,
    /// It is in the configuration, and its binary is gone.
    Broken,
    /// Its binary is there; the next start of the supervisor makes the handler.
    Pending,
    /// There is none.
    Absent,
    /// The configuration can't be read.
    Unknown,
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Broken => "configured, and its binary is gone",
            Self::Pending => "live after the next restart",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        })
    }
}

/// What is known of containerd's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// The node says so.
    Exactly(Version),
    /// Its release ships this one or a later one of the series.
    AtLeast(Version),
    /// The generation of its configuration: 2 or later.
    ByConfig,
    /// Nothing; the reason why.
    Nothing(String),
}

impl Known {
    /// From what the node says, then what its release ships, then the generation of its configuration.
    pub(crate) fn of(host: &Host, containerd: &Containerd) -> Self {
        let reason = match &containerd.version {
            Reading::Value(version) => return Self::Exactly(version.clone()),
            Reading::Failed(reason) => reason.clone(),
            Reading::NotSupported => "it does not say".to_owned(),
        };
        let shipped = host.distribution.value().and_then(|distribution| {
            releases::containerd_for(distribution.kind, distribution.version.value()?)
        });
        if let Some(shipped) = shipped {
            return Self::AtLeast(shipped.lowest);
        }
        if containerd
            .config
            .value()
            .is_some_and(|config| config.version >= 3)
        {
            return Self::ByConfig;
        }
        Self::Nothing(reason)
    }

    /// The version to reason with; abilities only grow within a series.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Exactly(version) | Self::AtLeast(version) => Some(version.clone()),
            Self::ByConfig => Some(Version::new(2, 0, 0)),
            Self::Nothing(_) => None,
        }
    }
}

/// The way that a GPU takes on this node.
pub(crate) fn of(host: &Host) -> GpuPath {
    let containerd = match &host.containerd {
        Reading::Value(containerd) => containerd,
        Reading::NotSupported => {
            return GpuPath {
                tier: Tier::None,
                reason: "there is no containerd on this node".to_owned(),
                handler: Handler::Absent,
            };
        }
        Reading::Failed(reason) => {
            return GpuPath {
                tier: Tier::Unknown,
                reason: reason.clone(),
                handler: Handler::Unknown,
            };
        }
    };
    let known = Known::of(host, containerd);
    let enabled = containerd
        .config
        .value()
        .and_then(|config: &ContainerdConfig| config.enable_cdi);
    let (tier, reason) = match known.version() {
        Some(version) => tier(&version, enabled),
        None => (Tier::Unknown, "containerd's version is not known".to_owned()),
    };
    GpuPath {
        tier,
        reason,
        handler: handler(host, containerd),
    }
}

/// The tier for a version of containerd; `enabled` is `enable_cdi` as written.
pub(crate) fn tier(containerd: &Version, enabled: Option<bool>) -> (Tier, String) {
    let series = format!("{}.{}", containerd.major, containerd.minor);
    match (containerd.major, enabled) {
        (0 | 1, _) => (
            Tier::Mounts,
            format!("containerd {series} does not take CDI names by itself"),
        ),
        (_, Some(false)) => (
            Tier::Mounts,
            "CDI is switched off in containerd's configuration".to_owned(),
        ),
        _ => (
            Tier::Native,
            format!("containerd {series} takes CDI names from the kubelet"),
        ),
    }
}

fn handler(host: &Host, containerd: &Containerd) -> Handler {
    let detected = containerd
        .detected_runtimes
        .iter()
        .any(|(name, _)| name == "nvidia");
    let is_supervised = host.distribution.value().is_some_and(|distribution| {
        matches!(distribution.kind, DistributionKind::Rke2 | DistributionKind::K3s)
    });
    match &containerd.config {
        Reading::Value(config) => match config.handlers.iter().find(|(name, _)| name == "nvidia") {
            // RKE2 and K3s write what they detect: a handler that they would not detect again has lost its binary.
            Some((_, binary)) if is_supervised && !binary.is_empty() && !detected => Handler::Broken,
            Some(_) => Handler::Live,
            None if detected => Handler::Pending,
            None => Handler::Absent,
        },
        Reading::NotSupported if detected => Handler::Pending,
        Reading::NotSupported => Handler::Absent,
        Reading::Failed(_) => Handler::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_follows_from_containerd_and_its_switch() {
        let of = |version: &str, enabled| tier(&version.parse().unwrap(), enabled).0;
        assert_eq!(of("1.6.38", None), Tier::Mounts);
        assert_eq!(of("1.7.27", None), Tier::Mounts);
        assert_eq!(of("1.7.27", Some(true)), Tier::Mounts);
        assert_eq!(of("2.0.2", None), Tier::Native);
        assert_eq!(of("2.2.6", Some(true)), Tier::Native);
        assert_eq!(of("2.2.6", Some(false)), Tier::Mounts);
    }
}
