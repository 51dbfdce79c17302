//! Nodes to plan for.

use crate::gpu::{GpuReadings, MigDevice, MigMode};
use crate::inventory::{DriverReadings, Link, PciPath};
use crate::mig::Placement;
use crate::pci::{NVIDIA_VENDOR_ID, PciAddress, PciFunction};
use crate::plugin::config::{Config, Overrides};
use crate::plugin::resources::{Plan, plan};
use crate::plugin::{Resource, Sharing};
use crate::{Gpu, Inventory, Reading};

/// A GPU with the UUID `GPU-INDEX` and no MIG.
pub(crate) fn gpu(index: u8) -> Gpu {
    let mut readings = GpuReadings::none_supported();
    readings.uuid = Reading::Value(format!("GPU-{index}"));
    readings.name = Reading::Value("NVIDIA A100-SXM4-40GB".to_owned());
    readings.mig_mode = Reading::Value(MigMode {
        current: false,
        pending: false,
    });
    Gpu {
        index: index.into(),
        pci: PciFunction {
            address: PciAddress {
                domain: 0,
                bus: index + 1,
                device: 0,
                function: 0,
            },
            vendor_id: NVIDIA_VENDOR_ID,
            device_id: 0x20b0,
            subsystem_vendor_id: 0,
            subsystem_device_id: 0,
        },
        readings,
    }
}

/// A GPU in MIG mode, with devices of these profiles: `MIG-GPU.DEVICE`.
pub(crate) fn cut(index: u8, profiles: &[&str]) -> Gpu {
    let mut gpu = gpu(index);
    gpu.readings.mig_mode = Reading::Value(MigMode {
        current: true,
        pending: true,
    });
    let device = |(at, profile): (u32, &&str)| MigDevice {
        uuid: format!("MIG-{index}-{at}"),
        gpu_instance: at,
        compute_instance: 0,
        profile: profile.parse().unwrap(),
        placement: Placement { start: 0, size: 1 },
        memory_total_bytes: Reading::NotSupported,
        memory_used_bytes: Reading::NotSupported,
        multiprocessors: Reading::NotSupported,
        engines: Reading::NotSupported,
    };
    gpu.readings.mig_devices = Reading::Value((0..).zip(profiles).map(device).collect());
    gpu
}

/// A GPU that doesn't answer any more.
pub(crate) fn lost(index: u8) -> Gpu {
    let mut gpu = gpu(index);
    gpu.readings = GpuReadings::all_failed("GPU is lost");
    gpu
}

/// A node with these GPUs, not connected.
pub(crate) fn node(gpus: Vec<Gpu>) -> Inventory {
    Inventory {
        driver: DriverReadings::none_supported(),
        gpus,
        links: Vec::new(),
        silent: Vec::new(),
    }
}

/// A pair of GPUs.
pub(crate) fn link(from: u32, to: u32, path: PciPath, nvlinks: u32) -> Link {
    Link {
        from,
        to,
        path: Reading::Value(path),
        nvlinks: Reading::Value(nvlinks),
    }
}

/// A configuration.
pub(crate) fn config(text: &str) -> Config {
    Config::parse(text).unwrap().with(&Overrides::default()).unwrap()
}

/// The plan of a node.
pub(crate) fn planned(inventory: &Inventory, text: &str) -> Plan {
    plan(inventory, &config(text), &std::collections::BTreeMap::new()).unwrap()
}

/// A plan in a few lines.
pub(crate) fn shown(plan: &Plan) -> String {
    let line = |resource: &Resource| {
        let sharing = match resource.sharing {
            Sharing::None => "",
            Sharing::TimeSlicing => " (time-slicing)",
            Sharing::Mps => " (mps)",
        };
        let ids: Vec<&str> = resource.devices.iter().map(|device| device.id.as_str()).collect();
        format!("{}{sharing}: {}\n", resource.name, ids.join(" "))
    };
    plan.resources.iter().map(line).collect()
}
