//! What the fake kubelet knows, and how it decides: the real device manager's rules, without sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::pod::{AdmitError, Container, Holding, Kind, Pod, PodKey, Started, merge, numa};
use crate::device_plugin::{
    ContainerAllocateResponse, Device, DevicePluginClient, DevicePluginOptions, HEALTHY,
};

pub(super) type Ids = BTreeSet<String>;

/// The plugin that was last connected for a resource.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `None` once it is gone, and after a restart until it comes back.
    pub(super) plugin: Option<DevicePluginClient<Channel>>,
    pub(super) socket: PathBuf,
    pub(super) options: DevicePluginOptions,
    /// When it went.
    pub(super) stopped: Option<Instant>,
}

/// Everything. What outlives a kubelet is what [`State::restarted`] keeps.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    /// The connection that was last made for a resource. Sending closes it.
    pub(super) clients: BTreeMap<String, watch::Sender<bool>>,
    all: BTreeMap<String, BTreeMap<String, Device>>,
    healthy: BTreeMap<String, Ids>,
    unhealthy: BTreeMap<String, Ids>,
    allocated: BTreeMap<String, Ids>,
    pub(super) pods: BTreeMap<PodKey, Pod>,
    /// By pod, container and resource.
    pub(super) held: BTreeMap<PodKey, BTreeMap<String, BTreeMap<String, Holding>>>,
}

/// What of the free devices goes first.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// Near to the wanted NUMA nodes.
    pub(super) aligned: Ids,
    /// Near to others.
    pub(super) unaligned: Ids,
    /// Near to none that is known.
    pub(super) nowhere: Ids,
}

impl State {
    /// What a kubelet knows that starts where this one ended: pods and their devices, and names of resources, whose
    /// plugins have to come again.
    pub(super) fn restarted(self) -> Self {
        let names: Vec<String> = self.healthy.into_keys().collect();
        let stopped = names.iter().map(|name| {
            let endpoint = Endpoint {
                plugin: None,
                socket: PathBuf::new(),
                options: DevicePluginOptions::default(),
                stopped: Some(Instant::now()),
            };
            (name.clone(), endpoint)
        });
        let empty = |names: &[String]| names.iter().map(|name| (name.clone(), Ids::new())).collect();
        let mut state = Self {
            endpoints: stopped.collect(),
            healthy: empty(&names),
            unhealthy: empty(&names),
            pods: self.pods,
            held: self.held,
            ..Self::default()
        };
        state.count_again();
        state
    }

    /// Takes a plugin's list.
    pub(super) fn update(&mut self, resource: &str, devices: Vec<Device>) {
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            devices.iter().partition(|device| device.health == HEALTHY);
        let ids = |devices: Vec<&Device>| devices.into_iter().map(|device| device.id.clone()).collect();
        self.healthy.insert(resource.to_owned(), ids(healthy));
        self.unhealthy.insert(resource.to_owned(), ids(unhealthy));
        let all = devices.into_iter().map(|device| (device.id.clone(), device));
        self.all.insert(resource.to_owned(), all.collect());
    }

    /// A plugin's connection was closed: its devices stay known, and none is healthy.
    pub(super) fn disconnected(&mut self, resource: &str) {
        let Some(endpoint) = self.endpoints.get_mut(resource) else {
            return;
        };
        endpoint.stopped = Some(Instant::now());
        endpoint.plugin = None;
        let healthy = self.healthy.get_mut(resource).map(std::mem::take);
        self.unhealthy
            .entry(resource.to_owned())
            .or_default()
            .extend(healthy.into_iter().flatten());
    }

    /// Capacity and allocatable of each resource. Those whose plugins went longer ago than `grace` are forgotten.
    pub(super) fn capacity(&mut self, grace: Duration) -> BTreeMap<String, (usize, usize)> {
        let gone = |endpoint: Option<&Endpoint>| {
            endpoint.is_none_or(|endpoint| endpoint.stopped.is_some_and(|at| at.elapsed() > grace))
        };
        let names: Ids = self
            .healthy
            .keys()
            .chain(self.unhealthy.keys())
            .cloned()
            .collect();
        let mut capacity = BTreeMap::new();
        for name in names {
            if gone(self.endpoints.get(&name)) {
                self.endpoints.remove(&name);
                self.healthy.remove(&name);
                self.unhealthy.remove(&name);
            } else {
                let healthy = self.healthy.get(&name).map_or(0, Ids::len);
                let unhealthy = self.unhealthy.get(&name).map_or(0, Ids::len);
                capacity.insert(name, (healthy + unhealthy, healthy));
            }
        }
        capacity
    }

    /// Healthy devices of all resources.
    pub(super) fn allocatable(&self) -> impl Iterator<Item = (&str, &Device)> {
        self.healthy.iter().flat_map(move |(resource, ids)| {
            let all = self.all.get(resource);
            ids.iter()
                .filter_map(move |id| Some((resource.as_str(), all?.get(id)?)))
        })
    }

    /// All devices of a resource and whether each is healthy.
    pub(super) fn devices(&self, resource: &str) -> Vec<(String, bool, Vec<i64>)> {
        let all = self.all.get(resource);
        let sets = [
            (self.healthy.get(resource), true),
            (self.unhealthy.get(resource), false),
        ];
        let mut devices: Vec<_> = sets
            .into_iter()
            .flat_map(|(ids, healthy)| ids.into_iter().flatten().map(move |id| (id, healthy)))
            .map(|(id, healthy)| {
                let nodes = all.and_then(|all| all.get(id)).map(numa);
                (id.clone(), healthy, nodes.unwrap_or_default())
            })
            .collect();
        devices.sort();
        devices
    }

    /// How many healthy devices a resource has; `None` where it isn't known.
    pub(super) fn healthy(&self, resource: &str) -> Option<usize> {
        self.healthy.get(resource).map(Ids::len)
    }

    /// True for a resource that has a plugin, had one, or of which somebody holds devices.
    pub(super) fn is_known(&self, resource: &str) -> bool {
        self.healthy.contains_key(resource) || self.allocated.contains_key(resource)
    }

    /// Counts anew what is held.
    pub(super) fn count_again(&mut self) {
        let mut allocated: BTreeMap<String, Ids> = BTreeMap::new();
        for (resource, holding) in self.held.values().flat_map(BTreeMap::values).flatten() {
            let ids = holding.devices.keys().cloned();
            allocated.entry(resource.clone()).or_default().extend(ids);
        }
        self.allocated = allocated;
    }

    /// Forgets a pod, which frees what it has. False where there is none.
    pub(super) fn remove(&mut self, pod: &PodKey) -> bool {
        let known = self.pods.remove(pod).is_some();
        self.held.remove(pod);
        self.count_again();
        known
    }

    /// What a container has of a resource.
    pub(super) fn holding(&self, pod: &PodKey, container: &str, resource: &str) -> Option<&Holding> {
        self.held.get(pod)?.get(container)?.get(resource)
    }

    /// How many devices a container still needs: all, or none where it has them already.
    pub(super) fn needed(
        &self,
        pod: &PodKey,
        container: &str,
        resource: &str,
        wanted: usize,
    ) -> Result<usize, AdmitError> {
        let named = || resource.to_owned();
        let held = self.holding(pod, container, resource);
        if let Some(holding) = held
            && holding.devices.len() != wanted
        {
            return Err(AdmitError::Changed {
                resource: named(),
                held: holding.devices.len(),
                wanted,
            });
        }
        let Some(healthy) = self.healthy.get(resource) else {
            return Err(AdmitError::Unregistered { resource: named() });
        };
        if healthy.is_empty() {
            return Err(AdmitError::NoneHealthy { resource: named() });
        }
        match held {
            Some(holding) if !holding.devices.keys().all(|id| healthy.contains(id)) => {
                Err(AdmitError::Unhealthy { resource: named() })
            }
            Some(_) => Ok(0),
            None => Ok(wanted),
        }
    }

    /// Devices that nobody holds and that are healthy.
    pub(super) fn free(&self, resource: &str) -> Ids {
        let healthy = self.healthy.get(resource).cloned().unwrap_or_default();
        match self.allocated.get(resource) {
            Some(taken) => healthy.difference(taken).cloned().collect(),
            None => healthy,
        }
    }

    /// Marks up to `count` of `from` as taken and moves them to `taken`, in the order of their ids. True when nothing
    /// more is needed.
    pub(super) fn take(&mut self, resource: &str, from: &Ids, taken: &mut Ids, needed: &mut usize) -> bool {
        let allocated = self.allocated.entry(resource.to_owned()).or_default();
        for id in from {
            if *needed == 0 {
                break;
            }
            if taken.insert(id.clone()) {
                allocated.insert(id.clone());
                *needed -= 1;
            }
        }
        *needed == 0
    }

    /// Sorts free devices by the NUMA nodes that are wanted. Where nothing is wanted, or no device of the resource is
    /// near to any, there is no order among them.
    pub(super) fn affinity(&self, resource: &str, free: &Ids, near: Option<&BTreeSet<i64>>) -> Affinity {
        let all = self.all.get(resource);
        let nodes = |id: &String| all.and_then(|all| all.get(id)).map(numa).unwrap_or_default();
        let placed = all.is_some_and(|all| all.values().any(|device| !numa(device).is_empty()));
        let (Some(near), true) = (near, placed) else {
            return Affinity {
                nowhere: free.clone(),
                ..Affinity::default()
            };
        };
        let mut sorted = Affinity::default();
        for id in free {
            let nodes = nodes(id);
            let list = if nodes.is_empty() {
                &mut sorted.nowhere
            } else if nodes.iter().any(|node| near.contains(node)) {
                &mut sorted.aligned
            } else {
                &mut sorted.unaligned
            };
            list.insert(id.clone());
        }
        sorted
    }

    /// Keeps a plugin's answer.
    pub(super) fn hold(
        &mut self,
        pod: &PodKey,
        container: &str,
        resource: &str,
        ids: &Ids,
        answer: ContainerAllocateResponse,
    ) {
        let all = self.all.get(resource);
        let devices = ids.iter().map(|id| {
            let nodes = all.and_then(|all| all.get(id)).map(numa);
            (id.clone(), nodes.unwrap_or_default())
        });
        let devices = devices.collect();
        let containers = self.held.entry(pod.clone()).or_default();
        let resources = containers.entry(container.to_owned()).or_default();
        resources.insert(resource.to_owned(), Holding { devices, answer });
    }

    /// What of the pod's devices the containers after this one may have again.
    pub(super) fn pass_on(&self, pod: &PodKey, container: &Container, reusable: &mut BTreeMap<String, Ids>) {
        let resources = self
            .held
            .get(pod)
            .and_then(|containers| containers.get(&container.name));
        for (resource, holding) in resources.into_iter().flatten() {
            let ids = reusable.entry(resource.clone()).or_default();
            match container.kind {
                Kind::Init => ids.extend(holding.devices.keys().cloned()),
                Kind::Sidecar | Kind::Main => ids.retain(|id| !holding.devices.contains_key(id)),
            }
        }
    }

    /// What a container starts with, from what is kept.
    pub(super) fn started(&self, pod: &PodKey, container: &str) -> Started {
        let resources = self
            .held
            .get(pod)
            .and_then(|containers| containers.get(container));
        let Some(resources) = resources else {
            return Started::default();
        };
        let ids = |holding: &Holding| holding.devices.keys().cloned().collect();
        Started {
            devices: resources
                .iter()
                .map(|(resource, holding)| (resource.clone(), ids(holding)))
                .collect(),
            options: merge(resources.values().map(|holding| &holding.answer)),
        }
    }
}
