//! How many containers share each device, and under which name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, PlanError, Whole, called};
use crate::catalog::ComputeCapability;
use crate::plugin::Sharing;
use crate::plugin::config::{Config, DeviceRef, Devices, Remark, Shared};

/// Most clients of MPS on a GPU of compute capability 7.5 or later, and on an older one (fact sheet `devices`, section
/// 1.8; the reference's own limits).
const MOST_CLIENTS: (u32, u32) = (48, 16);

/// How a device is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Full name of the resource.
    pub(super) resource: String,
    /// How it is shared.
    pub(super) sharing: Sharing,
    /// Into how many; 1 for one that isn't shared.
    pub(super) replicas: u32,
}

/// The share of each device, in their order.
pub(super) fn shares(
    devices: &[Whole<'_>],
    config: &Config,
    plan: &mut Plan,
) -> Result<Vec<Share>, PlanError> {
    let alone = |device: &Whole<'_>| Share {
        resource: device.resource.clone(),
        sharing: Sharing::None,
        replicas: 1,
    };
    let Some((sharing, rules)) = config.sharing() else {
        return Ok(devices.iter().map(alone).collect());
    };
    let entries = entries(devices, rules);
    remark_unused(sharing, rules, devices, &entries, plan);
    let mut shares: Vec<Share> = Vec::with_capacity(devices.len());
    for (device, entry) in devices.iter().zip(&entries) {
        shares.push(match entry.and_then(|at| rules.resources.get(at)) {
            None => alone(device),
            Some(entry) => Share {
                resource: rules.name(entry),
                sharing,
                replicas: entry.replicas,
            },
        });
    }
    if sharing == Sharing::Mps {
        for_mps(devices, &mut shares, plan)?;
    }
    Ok(shares)
}

/// For each device, the entry that means it: the first that does.
fn entries(devices: &[Whole<'_>], rules: &Shared) -> Vec<Option<usize>> {
    let mut taken: Vec<u32> = vec![0; rules.resources.len()];
    let entry = |device: &Whole<'_>| {
        let at = rules.resources.iter().zip(&taken).position(|(entry, taken)| {
            entry.name == device.resource
                && match &entry.devices {
                    Devices::All => true,
                    Devices::Count(most) => taken < most,
                    Devices::List(list) => list.iter().any(|named| means(named, device)),
                }
        })?;
        taken[at] += 1;
        Some(at)
    };
    devices.iter().map(entry).collect()
}

/// True when the device is this one. A GPU that is cut up is meant by no index of a GPU, but all of its MIG devices are
/// by its UUID.
fn means(named: &DeviceRef, device: &Whole<'_>) -> bool {
    match named {
        DeviceRef::Gpu(index) => device.mig.is_none() && device.gpu.index == *index,
        DeviceRef::Mig(gpu, mig) => device.gpu.index == *gpu && device.mig == Some(*mig),
        DeviceRef::Uuid(uuid) => device.uuid == uuid || device.gpu_uuid == uuid,
    }
}

/// Tells of entries that mean nothing here. One configuration serves many nodes, so that is no error.
fn remark_unused(
    sharing: Sharing,
    rules: &Shared,
    devices: &[Whole<'_>],
    entries: &[Option<usize>],
    plan: &mut Plan,
) {
    let kind = if sharing == Sharing::Mps {
        "mps"
    } else {
        "timeSlicing"
    };
    for (at, entry) in rules.resources.iter().enumerate() {
        let path = format!("sharing.{kind}.resources[{at}]");
        if !devices.iter().any(|device| device.resource == entry.name) {
            let what = format!("shares `{}`, which this node doesn't have", entry.name);
            plan.remarks.push(Remark::new(path, what));
            continue;
        }
        if let Devices::List(list) = &entry.devices {
            let is_here = |named: &&DeviceRef| {
                devices
                    .iter()
                    .any(|device| device.resource == entry.name && means(named, device))
            };
            let missing: Vec<String> = list
                .iter()
                .filter(|named| !is_here(named))
                .map(DeviceRef::to_string)
                .collect();
            if !missing.is_empty() {
                let what = format!(
                    "names {}, which `{}` has not on this node",
                    missing.join(", "),
                    entry.name
                );
                plan.remarks.push(Remark::new(path.clone(), what));
            }
        }
        if !entries.contains(&Some(at)) && entry.devices == Devices::All {
            let what = "means no device: entries before it mean all";
            plan.remarks.push(Remark::new(path, what));
        }
    }
}

/// What MPS asks of a node, and the devices of its resources that no entry means.
fn for_mps(devices: &[Whole<'_>], shares: &mut [Share], plan: &mut Plan) -> Result<(), PlanError> {
    let names: BTreeSet<String> = shares
        .iter()
        .filter(|share| share.sharing == Sharing::Mps)
        .map(|share| share.resource.clone())
        .collect();
    let mut single: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (device, share) in devices.iter().zip(shares) {
        if !names.contains(&share.resource) {
            continue;
        }
        if device.mig.is_some() {
            return Err(PlanError::MpsOnMig {
                resource: device.resource.clone(),
                device: device.uuid.to_owned(),
                gpu: called(device.gpu),
            });
        }
        let capability = device.gpu.readings.compute_capability.value().copied();
        let capability = capability.or_else(|| device.gpu.card().map(|card| card.compute_capability));
        let most = match capability {
            Some(ComputeCapability { major, minor }) if (major, minor) < (7, 5) => MOST_CLIENTS.1,
            _ => MOST_CLIENTS.0,
        };
        if share.replicas > most {
            return Err(PlanError::TooManyClients {
                gpu: called(device.gpu),
                replicas: share.replicas,
                most,
            });
        }
        if share.sharing == Sharing::None {
            share.sharing = Sharing::Mps;
            single
                .entry(&device.resource)
                .or_default()
                .push(called(device.gpu));
        }
    }
    for (resource, gpus) in single {
        let what = format!(
            "goes through MPS as a whole, to one container at a time: `{resource}` is shared through MPS and not \
             renamed; give the entry in `sharing.mps` a `rename` to keep them apart"
        );
        plan.remarks.push(Remark::new(gpus.join(", "), what));
    }
    Ok(())
}
