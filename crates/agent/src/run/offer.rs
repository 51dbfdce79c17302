//! What a node offers, out of its GPUs, its configuration and what its runtime can do. All pure.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_core::Inventory;
use pitcrew_core::plugin::config::{Config, DeviceIdStrategy, DeviceListStrategy};
use pitcrew_host::Host;

use crate::plugin::{Extras, Strategy};

/// NUMA nodes of GPUs, by UUID: the driver knows the GPU, the kernel its node.
pub(super) fn numa(gpus: &Inventory, host: &Host) -> BTreeMap<String, u32> {
    let on_bus = host.gpus.value().map_or(&[][..], Vec::as_slice);
    let known = gpus.gpus.iter().filter_map(|gpu| {
        let on_bus = on_bus
            .iter()
            .find(|found| found.function.address == gpu.pci.address)?;
        Some((gpu.readings.uuid.value()?.clone(), *on_bus.numa_node.value()?))
    });
    known.collect()
}

/// What the configuration asks for.
pub(super) fn strategies(config: &Config) -> Vec<Strategy> {
    let asked = config.flags.plugin.device_list_strategies.iter();
    asked
        .map(|strategy| match strategy {
            DeviceListStrategy::Envvar => Strategy::Envvar,
            DeviceListStrategy::VolumeMounts => Strategy::VolumeMounts,
            DeviceListStrategy::CdiAnnotations => Strategy::CdiAnnotations,
            DeviceListStrategy::CdiCri => Strategy::CdiCri,
        })
        .collect()
}

/// Version of the kubelet, major and minor: the distribution's is that of Kubernetes.
pub(super) fn kubelet(host: &Host) -> Option<(u64, u64)> {
    let version = host.distribution.value()?.version.value()?;
    Some((version.major, version.minor))
}

/// What containers get besides GPUs.
pub(super) fn extras(config: &Config) -> Extras {
    Extras {
        imex_channels: config.imex.channels.clone(),
        gds: config.flags.gds,
        mofed: config.flags.mofed,
        gdrcopy: config.flags.gdrcopy,
    }
}

/// Full names of all CDI devices that there are.
pub(super) fn cdi_devices(host: &Host) -> BTreeSet<String> {
    let summaries = host.cdi.iter().filter_map(|file| file.spec.value());
    summaries
        .flat_map(|summary| {
            let full = |name: &String| format!("{}={name}", summary.kind);
            summary.devices.iter().map(full)
        })
        .collect()
}

/// Names by index, by UUID, where they are asked for: `0`, and `0:1` for a MIG device.
pub(super) fn indices(config: &Config, gpus: &Inventory) -> Option<BTreeMap<String, String>> {
    if config.flags.plugin.device_id_strategy != DeviceIdStrategy::Index {
        return None;
    }
    let mut indices = BTreeMap::new();
    for gpu in &gpus.gpus {
        if let Some(uuid) = gpu.readings.uuid.value() {
            indices.insert(uuid.clone(), gpu.index.to_string());
        }
        let migs = gpu.readings.mig_devices.value().map_or(&[][..], Vec::as_slice);
        for (at, mig) in migs.iter().enumerate() {
            indices.insert(mig.uuid.clone(), format!("{}:{at}", gpu.index));
        }
    }
    Some(indices)
}
