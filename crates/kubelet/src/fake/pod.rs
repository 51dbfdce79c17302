//! Pods as the fake kubelet admits them, and what becomes of their containers.

use std::collections::{BTreeMap, BTreeSet};

use crate::device_plugin::{ContainerAllocateResponse, Device};

/// Namespace and name.
pub(super) type PodKey = (String, String);

/// A pod that asks for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) containers: Vec<Container>,
    pub(super) near: Option<BTreeSet<i64>>,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) limits: BTreeMap<String, usize>,
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Before the others, to its end: its devices are free for them afterwards.
    Init,
    /// Before the others, and on beside them.
    Sidecar,
    /// After the others have begun.
    Main,
}

impl Pod {
    /// A pod without containers.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            containers: Vec::new(),
            near: None,
        }
    }

    /// Adds a container that asks for `limits` (extended resource and number).
    #[must_use]
    pub fn container(self, name: &str, limits: &[(&str, usize)]) -> Self {
        self.with(name, Kind::Main, limits)
    }

    /// Adds an init container: later ones get its devices first.
    #[must_use]
    pub fn init_container(self, name: &str, limits: &[(&str, usize)]) -> Self {
        self.with(name, Kind::Init, limits)
    }

    /// Adds an init container that goes on running (`restartPolicy: Always`): it keeps its devices.
    #[must_use]
    pub fn sidecar(self, name: &str, limits: &[(&str, usize)]) -> Self {
        self.with(name, Kind::Sidecar, limits)
    }

    /// Says what the topology manager found best: the NUMA nodes that devices should be near to.
    #[must_use]
    pub fn near(mut self, numa_nodes: impl IntoIterator<Item = i64>) -> Self {
        self.near = Some(numa_nodes.into_iter().collect());
        self
    }

    fn with(mut self, name: &str, kind: Kind, limits: &[(&str, usize)]) -> Self {
        self.containers.push(Container {
            name: name.to_owned(),
            kind,
            limits: limits
                .iter()
                .map(|&(resource, count)| (resource.to_owned(), count))
                .collect(),
        });
        self
    }

    pub(super) fn key(&self) -> PodKey {
        (self.namespace.clone(), self.name.clone())
    }

    /// Containers as they are admitted: init containers and sidecars first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Container> {
        let mains = self.containers.iter().filter(|one| one.kind == Kind::Main);
        let inits = self.containers.iter().filter(|one| one.kind != Kind::Main);
        inits.chain(mains)
    }
}

/// What a container starts with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Started {
    /// Its devices by resource, in the order of their ids.
    pub devices: BTreeMap<String, Vec<String>>,
    /// The answers of all its resources' plugins, merged as the kubelet does: of two that say something of the same
    /// variable, path or annotation the first counts.
    pub options: ContainerAllocateResponse,
}

/// Devices that a container has of one resource, and the answer that came with them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holding {
    /// NUMA nodes by id.
    pub(super) devices: BTreeMap<String, Vec<i64>>,
    pub(super) answer: ContainerAllocateResponse,
}

/// NUMA nodes that a device is near to.
pub(super) fn numa(device: &Device) -> Vec<i64> {
    let nodes = device.topology.iter().flat_map(|topology| &topology.nodes);
    nodes.map(|node| node.id).collect()
}

/// Merges the answers that a container got.
pub(super) fn merge<'a>(
    holdings: impl IntoIterator<Item = &'a ContainerAllocateResponse>,
) -> ContainerAllocateResponse {
    let mut merged = ContainerAllocateResponse::default();
    for answer in holdings {
        for (key, value) in &answer.envs {
            merged.envs.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for (key, value) in &answer.annotations {
            merged
                .annotations
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        for device in &answer.devices {
            if merged
                .devices
                .iter()
                .all(|known| known.container_path != device.container_path)
            {
                merged.devices.push(device.clone());
            }
        }
        for mount in &answer.mounts {
            if merged
                .mounts
                .iter()
                .all(|known| known.container_path != mount.container_path)
            {
                merged.mounts.push(mount.clone());
            }
        }
        for device in &answer.cdi_devices {
            if !merged.cdi_devices.contains(device) {
                merged.cdi_devices.push(device.clone());
            }
        }
    }
    merged
}

/// Why a pod is not admitted, or a container not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// No plugin has registered it since the kubelet's directory was made.
    #[error("no plugin has registered {resource}")]
    Unregistered {
        /// The resource.
        resource: String,
    },
    /// All of its devices are unhealthy, or its plugin is gone.
    #[error("no device of {resource} is healthy")]
    NoneHealthy {
        /// The resource.
        resource: String,
    },
    /// Devices that the container has already are not healthy any more.
    #[error("devices of {resource} that the container has are not healthy")]
    Unhealthy {
        /// The resource.
        resource: String,
    },
    /// Others hold too many.
    #[error("{wanted} of {resource} are wanted, and {free} are free and healthy")]
    Insufficient {
        /// The resource.
        resource: String,
        /// How many more the container needs.
        wanted: usize,
        /// How many may be had.
        free: usize,
    },
    /// The pod was admitted with another number.
    #[error("the container has {held} of {resource} and asks for {wanted} now")]
    Changed {
        /// The resource.
        resource: String,
        /// How many it has.
        held: usize,
        /// How many it asks for.
        wanted: usize,
    },
    /// The plugin was known and is not there.
    #[error("the plugin of {resource} is gone")]
    PluginGone {
        /// The resource.
        resource: String,
    },
    /// The plugin refused.
    #[error("the plugin of {resource} failed in {call}: {message}")]
    Plugin {
        /// The resource.
        resource: String,
        /// The call.
        call: &'static str,
        /// What it said.
        message: String,
    },
    /// No such pod or container.
    #[error("there is no container {container} in a pod {namespace}/{pod}")]
    Unknown {
        /// Namespace.
        namespace: String,
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The kubelet does not run.
    #[error("the kubelet is stopped")]
    Stopped,
}
