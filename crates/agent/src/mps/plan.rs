//! Which daemons there should be.

use std::collections::BTreeMap;

use pitcrew_core::catalog::{ComputeCapability, max_mps_clients};
use pitcrew_core::plugin::{Resource, Sharing};
use pitcrew_core::{Gpu, Inventory};
use serde::{Deserialize, Serialize};

use super::problems;
use crate::snapshot::Problem;

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Name of the resource.
    pub resource: String,
    /// Its GPUs, in the order in which servers number them.
    pub gpus: Vec<Part>,
    /// Most of a GPU's threads that a client gets, in percent.
    pub active_thread_percentage: u32,
}

/// A GPU of a daemon, and what of it a client gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// UUID of the GPU.
    pub uuid: String,
    /// How many clients it is divided among.
    pub replicas: usize,
    /// Most memory of a client in MiB; `None` where the GPU's memory isn't known.
    pub memory_limit_mib: Option<u64>,
}

/// The daemon of each resource that is shared through MPS, or why it can't have one. GPUs that the driver doesn't know at
/// the moment are left out: they are unhealthy anyway.
pub fn plan(resources: &[Resource], gpus: &Inventory) -> BTreeMap<String, Result<Daemon, Problem>> {
    let shared = resources
        .iter()
        .filter(|resource| resource.sharing == Sharing::Mps);
    shared
        .map(|resource| (resource.name.clone(), daemon(resource, gpus)))
        .collect()
}

fn daemon(resource: &Resource, gpus: &Inventory) -> Result<Daemon, Problem> {
    let mut parts: Vec<Part> = Vec::new();
    for device in &resource.devices {
        if device.uuid != device.gpu {
            return Err(problems::mig_device(&device.uuid));
        }
        if parts.iter().any(|part| part.uuid == device.uuid) {
            continue;
        }
        let known = |gpu: &&Gpu| gpu.readings.uuid.value() == Some(&device.uuid);
        let Some(gpu) = gpus.gpus.iter().find(known) else {
            continue;
        };
        if gpu.readings.mig_mode.value().is_some_and(|mode| mode.current) {
            return Err(problems::mig_mode(&device.uuid));
        }
        let replicas = resource
            .devices
            .iter()
            .filter(|other| other.uuid == device.uuid)
            .count();
        let most = most_clients(gpu);
        if replicas > most {
            return Err(problems::too_many_replicas(&device.uuid, replicas, most));
        }
        let share = |bytes: &u64| bytes / u64::try_from(replicas).unwrap_or(1) / (1 << 20);
        parts.push(Part {
            uuid: device.uuid.clone(),
            replicas,
            memory_limit_mib: gpu.readings.memory_total_bytes.value().map(share),
        });
    }
    // One number is for all GPUs of a daemon. Where they differ nobody is kept from what its own GPU is divided into.
    let Some(fewest) = parts.iter().map(|part| part.replicas).min() else {
        return Err(problems::no_gpus());
    };
    let percentage = 100 / u32::try_from(fewest).unwrap_or(u32::MAX);
    Ok(Daemon {
        resource: resource.name.clone(),
        gpus: parts,
        active_thread_percentage: percentage.max(1),
    })
}

/// Most clients of a GPU. One whose capability nobody knows is taken for an old one.
fn most_clients(gpu: &Gpu) -> usize {
    let read = gpu.readings.compute_capability.value().copied();
    let known = read.or_else(|| gpu.card().map(|card| card.compute_capability));
    let old = ComputeCapability { major: 0, minor: 0 };
    usize::try_from(max_mps_clients(known.unwrap_or(old))).unwrap_or(usize::MAX)
}
