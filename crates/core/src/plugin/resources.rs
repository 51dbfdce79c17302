//! The plan of a node's resources: from its GPUs and the configuration to what the kubelet is told.
//!
//! Source: fact sheet `devices`, sections 1.1 and 1.3. What isn't as in the reference, or isn't said there:
//!
//! - A GPU that can't be told apart from others (its UUID can't be read: lost, bound to `vfio-pci`) is never offered, and
//!   neither is one of which can't be read whether MIG cuts it up, where that matters. All others are ([`Plan::left_out`]
//!   says which not, and why): the reference fails as a whole.
//! - Under the strategy `none` a GPU in MIG mode is offered as a whole, as the reference does: a pod asks for a GPU and
//!   the count stays what it was. It can't run CUDA so, which a remark tells.
//! - Parts of a GPU instance (`1c.3g.40gb`) are not offered, as in the reference.
//! - A device is in one resource, once. What `devices` in `sharing` means is decided in the driver's order.
//! - Devices of a resource that is shared by MPS and not renamed, which no entry means, are clients of the daemon as
//!   well, one each: half of a resource can't be of another kind.

mod mig;
mod share;

#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::config::{Config, ConfigError, Remark};
use super::{Device, Resource, Sharing, replica_id};
use crate::pci::PciAddress;
use crate::{Gpu, Inventory, Reading};

/// What a node offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Its resources, in the order of their first devices.
    pub resources: Vec<Resource>,
    /// GPUs and MIG devices that are not in them.
    pub left_out: Vec<LeftOut>,
    /// What somebody should know of it, though it holds.
    pub remarks: Vec<Remark>,
    /// UUIDs of all GPUs, offered or not.
    pub(super) gpus: BTreeSet<String>,
    /// UUIDs of the GPUs that MIG devices are on, by that of the MIG device, offered or not.
    pub(super) mig_parents: BTreeMap<String, String>,
}

impl Plan {
    /// The resource with this name.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

/// A GPU or MIG device that isn't offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Position of the GPU in the driver's order.
    pub gpu_index: u32,
    /// Where the GPU is.
    pub pci: PciAddress,
    /// UUID of the GPU, or of the MIG device on it that this is about; `None` where it isn't known.
    pub uuid: Option<String>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {} at {}", self.gpu_index, self.pci)?;
        if let Some(uuid) = &self.uuid {
            write!(f, " ({uuid})")?;
        }
        write!(f, " is not offered: {}", self.reason)
    }
}

/// Why a node can offer nothing by this configuration. GPUs are named by index and UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The configuration can't hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `single`, and MIG is on on some GPUs only.
    #[error(
        "all GPUs of a node must be alike under the MIG strategy `single`: MIG is on on {}, and off on {}; \
         set it alike, or use `mixed`", enabled.join(", "), disabled.join(", ")
    )]
    MixedModes {
        /// GPUs with MIG on.
        enabled: Vec<String>,
        /// GPUs with MIG off.
        disabled: Vec<String>,
    },
    /// `single`, and GPUs in MIG mode have no devices.
    #[error(
        "no MIG devices are configured on {}, which the MIG strategy `single` asks for; \
         create them (label `nvidia.com/mig.config`), or turn MIG off", gpus.join(", ")
    )]
    NoMigDevices {
        /// The GPUs.
        gpus: Vec<String>,
    },
    /// `single`, and MIG devices are of several profiles.
    #[error(
        "all MIG devices must be of one profile under the MIG strategy `single`: there are {}; \
         cut all GPUs up alike, or use `mixed`", listed(.0)
    )]
    SeveralProfiles(
        /// GPUs, by the profile of devices on them.
        BTreeMap<String, Vec<String>>,
    ),
    /// A MIG device would be shared by MPS.
    #[error(
        "`{resource}` can't be shared through MPS: {device} on {gpu} is a MIG device; use `sharing.timeSlicing`"
    )]
    MpsOnMig {
        /// The resource, before it is renamed.
        resource: String,
        /// UUID of the MIG device.
        device: String,
        /// The GPU.
        gpu: String,
    },
    /// A GPU would have more clients of MPS than it can.
    #[error(
        "{gpu} can't be shared by {replicas} clients of MPS: at most {most} are possible; lower `replicas`"
    )]
    TooManyClients {
        /// The GPU.
        gpu: String,
        /// How many were asked for.
        replicas: u32,
        /// How many are possible.
        most: u32,
    },
}

fn listed(profiles: &BTreeMap<String, Vec<String>>) -> String {
    let of = |(profile, gpus): (&String, &Vec<String>)| format!("{profile} on {}", gpus.join(", "));
    profiles.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// A GPU for a sentence.
fn called(gpu: &Gpu) -> String {
    match gpu.readings.uuid.value() {
        Some(uuid) => format!("GPU {} ({uuid})", gpu.index),
        None => format!("GPU {} (at {})", gpu.index, gpu.pci.address),
    }
}

/// A device before it is shared.
#[derive(Debug)]
struct Whole<'a> {
    /// Full name of its resource.
    resource: String,
    /// Its UUID.
    uuid: &'a str,
    /// The GPU that it is or is on.
    gpu: &'a Gpu,
    /// UUID of that GPU.
    gpu_uuid: &'a str,
    /// For a MIG device, its position on the GPU.
    mig: Option<u32>,
}

/// Plans a node's resources.
///
/// `numa` has the NUMA nodes of GPUs, by UUID, as far as the kernel knows them. The same arguments give the same plan.
///
/// # Errors
/// Where the configuration can't be done on this node. Nothing should change then: what was offered before still holds.
pub fn plan(inventory: &Inventory, config: &Config, numa: &BTreeMap<String, u32>) -> Result<Plan, PlanError> {
    config.check()?;
    let mut plan = Plan::default();
    let usable = usable(inventory, &mut plan);
    let devices = mig::devices(&usable, config, &mut plan)?;
    let shared = share::shares(&devices, config, &mut plan)?;
    for (device, share) in devices.iter().zip(shared) {
        let ids = (0..share.replicas).map(|number| Device {
            id: replica_id(device.uuid, share.sharing, number, share.replicas),
            uuid: device.uuid.to_owned(),
            gpu: device.gpu_uuid.to_owned(),
            gpu_index: device.gpu.index,
            numa: numa.get(device.gpu_uuid).copied(),
        });
        let at = plan
            .resources
            .iter()
            .position(|resource| resource.name == share.resource);
        let at = at.unwrap_or_else(|| {
            plan.resources.push(Resource {
                name: share.resource.clone(),
                sharing: Sharing::None,
                one_per_container: false,
                devices: Vec::new(),
            });
            plan.resources.len() - 1
        });
        let resource = &mut plan.resources[at];
        resource.devices.extend(ids);
        if share.sharing != Sharing::None {
            resource.sharing = share.sharing;
            resource.one_per_container = config.one_per_container();
        }
    }
    Ok(plan)
}

/// GPUs that can be told apart, with their UUIDs. The others are left out.
fn usable<'a>(inventory: &'a Inventory, plan: &mut Plan) -> Vec<(&'a Gpu, &'a str)> {
    let mut usable: Vec<(&Gpu, &str)> = Vec::new();
    for gpu in &inventory.gpus {
        let reason = match &gpu.readings.uuid {
            Reading::Value(uuid) if uuid.is_empty() => "its UUID is empty".to_owned(),
            // The kubelet would refuse the list of devices as a whole.
            Reading::Value(uuid) if usable.iter().any(|(_, other)| other == uuid) => {
                "another GPU has the same UUID".to_owned()
            }
            Reading::Value(uuid) => {
                plan.gpus.insert(uuid.clone());
                usable.push((gpu, uuid));
                continue;
            }
            Reading::NotSupported => "the driver doesn't tell its UUID".to_owned(),
            Reading::Failed(reason) => reason.clone(),
        };
        plan.left_out.push(LeftOut {
            gpu_index: gpu.index,
            pci: gpu.pci.address,
            uuid: gpu.readings.uuid.value().filter(|uuid| !uuid.is_empty()).cloned(),
            reason,
        });
    }
    usable
}
