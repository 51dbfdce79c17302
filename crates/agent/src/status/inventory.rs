//! The inventory as a `GpuNode` shows it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_api::GpuNodeStatus;
use pitcrew_api::gpu_node::{Driver, Gpu, GpuHealth, Mig, MigDevices, Resource, Tier};
use pitcrew_core::health::{Health, Verdict};
use pitcrew_core::{Inventory, catalog, health};
use pitcrew_host::Host;
use pitcrew_host::facts::{DistributionKind, PciGpu};

use super::proven;
use crate::plugin::sickness;
use crate::snapshot::Snapshot;

/// What is said of a GPU that is kept for virtual machines.
pub(super) const PASSED_THROUGH: &str = "bound to vfio-pci, for virtual machines";

/// How the reason begins of a GPU that a call hangs at.
pub(super) const SILENT: &str = "the GPU does not answer: ";
/// What to do about it.
const OF_SILENCE: &str = "Look at `dmesg | grep -e NVRM -e nvidia`; it comes back when the call returns. If it doesn't, \
                          drain the node and reboot it";

/// All of a `GpuNode`'s status, but for its conditions and what only the API server knows.
pub fn status(snapshot: &Snapshot) -> GpuNodeStatus {
    let host = snapshot.host.as_deref();
    let inventory = inventory(snapshot);
    let gpus = gpus(snapshot);
    let ours = || {
        gpus.iter()
            .filter(|gpu| gpu.reason.as_deref() != Some(PASSED_THROUGH))
    };
    let counted = inventory.is_some() || host.is_some_and(|host| host.gpus.value().is_some());
    GpuNodeStatus {
        observed_generation: None,
        product: product(&gpus),
        gpu_count: counted.then(|| int(ours().count())),
        sick_count: inventory.map(|_| int(ours().filter(|gpu| gpu.health == GpuHealth::Unhealthy).count())),
        driver: driver(host, inventory),
        tier: match snapshot.tier {
            crate::runtime::Tier::Unknown => None,
            crate::runtime::Tier::Native => Some(Tier::Native),
            crate::runtime::Tier::Mounts => Some(Tier::Mounts),
            crate::runtime::Tier::Handler => Some(Tier::Handler),
        },
        distribution: host.and_then(distribution),
        containerd: host.and_then(|host| Some(host.containerd.value()?.version.value()?.to_string())),
        proof_request: snapshot.proof.answered.clone(),
        resources: resources(snapshot),
        gpus,
        conditions: Vec::new(),
    }
}

pub(super) fn inventory(snapshot: &Snapshot) -> Option<&Inventory> {
    snapshot.gpus.as_ref()?.as_deref().ok()
}

/// True where the driver says anything of the GPU.
pub(super) fn answers(gpu: &pitcrew_core::Gpu) -> bool {
    gpu.readings.uuid.value().is_some()
}

pub(super) fn is_passed_through(gpu: &PciGpu) -> bool {
    gpu.driver.value().is_some_and(|driver| driver == "vfio-pci")
}

/// `1 GPU`, `8 GPUs`.
pub(super) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// No node has that many of anything.
fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The GPUs, each with its health; without a driver what the PCI bus tells.
pub(super) fn gpus(snapshot: &Snapshot) -> Vec<Gpu> {
    if let Some(inventory) = inventory(snapshot) {
        let gpus = inventory.gpus.iter();
        return gpus.map(|gpu| self::gpu(snapshot, gpu)).collect();
    }
    let on_bus = snapshot.host.as_deref().and_then(|host| host.gpus.value());
    let on_bus = on_bus.map_or(&[][..], Vec::as_slice).iter();
    (0..)
        .zip(on_bus)
        .map(|(index, gpu)| on_the_bus(index, gpu))
        .collect()
}

fn on_the_bus(index: i32, gpu: &PciGpu) -> Gpu {
    let reason = if is_passed_through(gpu) {
        PASSED_THROUGH
    } else {
        "no driver answers for it"
    };
    Gpu {
        pci: gpu.function.address.to_string(),
        index,
        uuid: None,
        product: catalog::lookup(Some(gpu.function.device_id), None).map(|card| card.name.clone()),
        memory_bytes: None,
        health: GpuHealth::Unknown,
        reason: Some(reason.to_owned()),
        hint: None,
        mig: None,
        pods: None,
        proof: None,
    }
}

fn gpu(snapshot: &Snapshot, gpu: &pitcrew_core::Gpu) -> Gpu {
    let readings = &gpu.readings;
    let uuid = readings.uuid.value().cloned();
    let (health, reason, hint) = health(snapshot, gpu);
    let pods = snapshot.held.as_ref().zip(uuid.as_ref());
    Gpu {
        pci: gpu.pci.address.to_string(),
        index: i32::try_from(gpu.index).unwrap_or(i32::MAX),
        product: readings
            .name
            .value()
            .cloned()
            .or_else(|| gpu.card().map(|card| card.name.clone())),
        memory_bytes: readings
            .memory_total_bytes
            .value()
            .and_then(|&bytes| i64::try_from(bytes).ok()),
        health,
        reason,
        hint,
        mig: mig(gpu),
        proof: proven::of_gpu(snapshot, gpu),
        pods: pods.map(|(held, uuid)| int(held.get(uuid).map_or(0, BTreeSet::len))),
        uuid,
    }
}

fn health(snapshot: &Snapshot, gpu: &pitcrew_core::Gpu) -> (GpuHealth, Option<String>, Option<String>) {
    let host_gpus = snapshot.host.as_deref().and_then(|host| host.gpus.value());
    let kept = host_gpus.is_some_and(|gpus| {
        gpus.iter()
            .any(|it| it.function.address == gpu.pci.address && is_passed_through(it))
    });
    if kept && !answers(gpu) {
        return (GpuHealth::Unknown, Some(PASSED_THROUGH.to_owned()), None);
    }
    if let Some(silence) = inventory(snapshot).and_then(|inventory| inventory.silence(gpu.index)) {
        let reason = format!("{SILENT}{silence}");
        return (GpuHealth::Unknown, Some(reason), Some(OF_SILENCE.to_owned()));
    }
    let Health { verdict, findings } = health::assess(gpu);
    let worst = findings.first();
    let told = worst.map(|finding| finding.what.clone());
    let hint = worst.map(|finding| finding.advice.clone());
    let sick = gpu.readings.uuid.value().and_then(|uuid| snapshot.sick.get(uuid));
    if let Some(reason) = sick {
        let hint = hint.unwrap_or_else(|| {
            "Drain the GPU's pods and reset the GPU (`nvidia-smi --gpu-reset`), or reboot the node".to_owned()
        });
        return (GpuHealth::Unhealthy, Some(reason.clone()), Some(hint));
    }
    let health = match verdict {
        // Of a GPU without a UUID nobody can be told that it is sick: it isn't handed out either.
        Verdict::Unhealthy if !answers(gpu) => GpuHealth::Unhealthy,
        // It is still handed out: what decides that has been told to let this pass, or has yet to look.
        Verdict::Unhealthy | Verdict::Degraded => GpuHealth::Degraded,
        Verdict::Unknown => GpuHealth::Unknown,
        Verdict::Healthy => GpuHealth::Healthy,
    };
    (health, told, hint)
}

fn mig(gpu: &pitcrew_core::Gpu) -> Option<Mig> {
    let mode = gpu.readings.mig_mode.value()?;
    let mut devices = BTreeMap::<String, i32>::new();
    for device in gpu.readings.mig_devices.value().into_iter().flatten() {
        *devices.entry(device.profile.to_string()).or_default() += 1;
    }
    let devices = devices.into_iter();
    Some(Mig {
        enabled: mode.current,
        pending: (mode.pending != mode.current).then_some(mode.pending),
        devices: devices
            .map(|(profile, count)| MigDevices { profile, count })
            .collect(),
    })
}

/// The model, or the first one and how many others there are.
fn product(gpus: &[Gpu]) -> Option<String> {
    // The driver and our catalogue name a card differently: of those that don't answer only where none does.
    let any_answers = gpus.iter().any(|gpu| gpu.uuid.is_some());
    let mut models: Vec<&str> = Vec::new();
    for gpu in gpus.iter().filter(|gpu| gpu.uuid.is_some() || !any_answers) {
        if let Some(model) = gpu.product.as_deref()
            && !models.contains(&model)
        {
            models.push(model);
        }
    }
    let (first, others) = models.split_first()?;
    Some(match others.len() {
        0 => (*first).to_owned(),
        others => format!("{first} and {}", counted(others, "other model")),
    })
}

/// From the driver itself, else what the kernel has loaded.
fn driver(host: Option<&Host>, inventory: Option<&Inventory>) -> Option<Driver> {
    let told = inventory.map(|inventory| &inventory.driver);
    let loaded = host.map(|host| &host.driver);
    let driver = Driver {
        version: told
            .and_then(|driver| driver.version.value())
            .or_else(|| loaded?.kernel_version.value())
            .cloned(),
        cuda: told
            .and_then(|driver| driver.cuda.value())
            .map(ToString::to_string),
        open_kernel_modules: told
            .and_then(|driver| driver.open_kernel_modules.value())
            .or_else(|| loaded?.open_kernel_modules.value())
            .copied(),
    };
    (driver != Driver::default()).then_some(driver)
}

fn distribution(host: &Host) -> Option<String> {
    let distribution = host.distribution.value()?;
    let name = match distribution.kind {
        DistributionKind::Rke2 => "rke2",
        DistributionKind::K3s => "k3s",
        DistributionKind::Kubeadm => "kubeadm",
        DistributionKind::None => return None,
    };
    Some(match distribution.version.value() {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    })
}

/// Why the kubelet is told that a device is unhealthy, or is about to be.
pub(super) fn unhealthy<'a>(
    snapshot: &'a Snapshot,
    resource: &pitcrew_core::plugin::Resource,
    device: &pitcrew_core::plugin::Device,
) -> Option<&'a str> {
    let told = snapshot
        .unhealthy
        .get(&resource.name)
        .and_then(|ids| ids.get(&device.id));
    told.or_else(|| sickness(&snapshot.sick, device))
        .map(String::as_str)
}

/// The resources, and how many of their devices are well and known to the kubelet.
pub(super) fn resources(snapshot: &Snapshot) -> Vec<Resource> {
    let resource = |resource: &pitcrew_core::plugin::Resource| {
        let well = resource
            .devices
            .iter()
            .filter(|device| unhealthy(snapshot, resource, device).is_none());
        let is_known = snapshot.registered.contains(&resource.name);
        Resource {
            name: resource.name.clone(),
            capacity: int(resource.devices.len()),
            allocatable: if is_known { int(well.count()) } else { 0 },
        }
    };
    snapshot.resources.iter().map(resource).collect()
}
