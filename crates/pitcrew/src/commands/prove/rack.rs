//! Which GPUs are proved, and on what: this machine's, or a scenario's stand-ins.

use std::path::Path;
use std::time::Duration;

use pitcrew_core::gpu::{GpuProcess, GpuReadings, ProcessKind};
use pitcrew_core::inventory::Link;
use pitcrew_core::pci::PciAddress;
use pitcrew_core::ports::HostFs;
use pitcrew_core::proof::{
    Counters, Device, PeerPath, PeerRoute, Process, SetupError, SetupErrorCode, Unread, XidEvent,
};
use pitcrew_core::{Gpu, Inventory, Reading};
use pitcrew_host::pci::bound_driver;
use pitcrew_prove::progress::Progress;
use pitcrew_prove::run::{Options, Outcomes};

use crate::error::Error;

/// One GPU or MIG device that is to be proved.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// What it is.
    pub(super) device: Device,
    /// The GPU that it is, or is a part of.
    pub(super) gpu_uuid: String,
    /// Processes of others on it.
    pub(super) processes: Vec<Process>,
    /// Why it can't be.
    pub(super) setup_error: Option<SetupError>,
    /// What the driver could not say of it.
    pub(super) unread: Vec<Unread>,
    /// It was asked for by name.
    pub(super) is_named: bool,
}

/// Who is asked whether to go on, and told of what happens.
pub(super) struct Ends<'a> {
    pub(super) is_cancelled: &'a dyn Fn() -> bool,
    pub(super) tell: &'a mut dyn FnMut(Progress),
}

/// Opens what was chosen. Each call is made on a thread of its own.
pub(super) trait Rack: Send + Sync {
    /// Proves one target.
    fn work(&self, target: &Target, options: &Options, ends: Ends<'_>) -> Result<Outcomes, SetupError>;

    /// True while the driver compiles kernels, which takes long and says nothing.
    fn is_compiling(&self) -> bool {
        false
    }

    /// The last XID of a target, where somebody has heard of one.
    fn last_xid(&self, _target: &Target) -> Option<u32> {
        None
    }

    /// Counters and new XIDs of targets once all is done, where somebody watches; in the order of the targets.
    fn after(&self, _targets: &[Target]) -> Vec<(Counters, Vec<XidEvent>)> {
        Vec::new()
    }

    /// Copies between targets; indices in the paths are those of `targets`.
    fn peers(
        &self,
        targets: &[Target],
        time: Duration,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<PeerPath>, SetupError>;
}

/// The way between two targets, by the links of the inventory.
pub(super) fn route(links: &[Link], from: &Target, to: &Target) -> PeerRoute {
    let (a, b) = (from.device.index, to.device.index);
    let mut links = links.iter();
    match links.find(|link| (link.from, link.to) == (a.min(b), a.max(b))) {
        Some(link) if link.nvlinks.value().is_some_and(|&links| links > 0) => PeerRoute::NvLink,
        Some(_) => PeerRoute::Pcie,
        None => PeerRoute::Unknown,
    }
}

/// An inventory without the GPUs that are none of this run's: those on the bus (`bus_only`) that another driver has, and
/// those that this container was not given. A container sees the whole bus; what it was given has a device node. Where there
/// are more nodes than GPUs that the driver lists, those that it doesn't list are lost and stay.
pub(super) fn own(mut inventory: Inventory, bus_only: &[PciAddress], host: &dyn HostFs) -> Inventory {
    let is_listed = |gpu: &Gpu| !bus_only.contains(&gpu.pci.address);
    let listed = inventory.gpus.iter().filter(|gpu| is_listed(gpu)).count();
    let nodes = device_nodes(host);
    inventory.gpus.retain(|gpu| {
        let is_nvidias = || {
            bound_driver(host, gpu.pci.address)
                .value()
                .is_some_and(|name| name == "nvidia")
        };
        is_listed(gpu) || listed == 0 || (nodes > listed && is_nvidias())
    });
    inventory
}

/// How many GPUs have a device node, `/dev/nvidia` and a number.
fn device_nodes(host: &dyn HostFs) -> usize {
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let entries = host.list(Path::new("/dev")).unwrap_or_default();
    entries.iter().filter(|name| is_gpu(name)).count()
}

/// The targets among the GPUs of an inventory: those that were asked for, or all. With MIG on they are its devices.
pub(super) fn choose(inventory: &Inventory, wanted: &[String], share: bool) -> Result<Vec<Target>, Error> {
    select(
        inventory.gpus.iter().flat_map(|gpu| of_gpu(gpu, share)).collect(),
        wanted,
    )
}

/// The same of targets of which the management library has said nothing.
pub(super) fn choose_unseen(all: Vec<Target>, wanted: &[String], share: bool) -> Result<Vec<Target>, Error> {
    let mut chosen = select(all, wanted)?;
    for target in chosen.iter_mut().filter(|_| !share) {
        target.setup_error = Some(users_unknown(
            &target.device,
            "the management library does not answer",
        ));
    }
    Ok(chosen)
}

fn select(all: Vec<Target>, wanted: &[String]) -> Result<Vec<Target>, Error> {
    if wanted.is_empty() {
        return Ok(all);
    }
    let names = |target: &Target, name: &str| {
        target.device.uuid == name
            || target.gpu_uuid == name
            || target.device.index.to_string() == name
            || (name.len() >= 8
                && (target.device.uuid.starts_with(name) || target.gpu_uuid.starts_with(name)))
    };
    for name in wanted {
        if !all.iter().any(|target| names(target, name)) {
            let known = all
                .iter()
                .map(|target| format!("{} ({})", target.device.index, target.device.uuid));
            return Err(Error::NoSuchGpu {
                name: name.clone(),
                known: known.collect(),
            });
        }
    }
    let chosen = all
        .into_iter()
        .filter(|target| wanted.iter().any(|name| names(target, name)))
        .map(|target| Target {
            is_named: true,
            ..target
        });
    Ok(chosen.collect())
}

fn of_gpu(gpu: &Gpu, share: bool) -> Vec<Target> {
    let readings = &gpu.readings;
    let gpu_uuid = readings.uuid.value().cloned().unwrap_or_default();
    let unread: Vec<Unread> = readings.unread().into_iter().map(Unread::from).collect();
    let target = |device: Device, instance: Option<(u32, u32)>| {
        let processes: Vec<&GpuProcess> = readings
            .processes
            .value()
            .map(|all| {
                let is_here = |process: &&GpuProcess| {
                    instance.is_none_or(|(gpu, compute)| {
                        process.gpu_instance == Some(gpu)
                            && process.compute_instance.is_none_or(|its| its == compute)
                    })
                };
                all.iter().filter(is_here).collect()
            })
            .unwrap_or_default();
        Target {
            setup_error: (!share)
                .then(|| in_use(&device, &processes).or_else(|| not_told(&device, readings)))
                .flatten(),
            device,
            gpu_uuid: gpu_uuid.clone(),
            processes: processes
                .into_iter()
                .map(|process| Process {
                    pid: process.pid,
                    memory_bytes: process.memory_bytes.value().copied(),
                })
                .collect(),
            unread: unread.clone(),
            is_named: false,
        }
    };
    let mut whole = target(Device::of(gpu), None);
    if let Some(reason) = readings.uuid.failure() {
        whole.setup_error = Some(SetupError {
            code: SetupErrorCode::GpuLost,
            message: format!(
                "{} at {} can't be used: {reason}",
                whole.device.title(),
                gpu.pci.address
            ),
            fix: Some(
                "`pitcrew check` says what is wrong with it; a GPU that is lost must be reset".to_owned(),
            ),
            cuda_error: None,
        });
        return vec![whole];
    }
    let is_mig = readings.mig_mode.value().is_some_and(|mode| mode.current);
    if !is_mig {
        return vec![whole];
    }
    let devices = readings
        .mig_devices
        .value()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if devices.is_empty() {
        whole.setup_error = Some(SetupError {
            code: SetupErrorCode::NoMigInstance,
            message: format!("MIG is on and there is no instance on {}", whole.device.title()),
            fix: Some(format!(
                "create one with `nvidia-smi mig -i {0} -cgi <profile> -C`, or turn MIG off with `nvidia-smi -i {0} -mig 0`",
                whole.device.index
            )),
            cuda_error: None,
        });
        return vec![whole];
    }
    devices
        .iter()
        .map(|mig| {
            target(
                Device::of_mig(gpu, mig),
                Some((mig.gpu_instance, mig.compute_instance)),
            )
        })
        .collect()
}

/// Where the driver doesn't say who uses a GPU, somebody may.
fn not_told(device: &Device, readings: &GpuReadings) -> Option<SetupError> {
    let why = match &readings.processes {
        Reading::Value(_) => return None,
        Reading::NotSupported => "the driver does not list them",
        Reading::Failed(why) => why,
    };
    Some(users_unknown(device, why))
}

fn users_unknown(device: &Device, why: &str) -> SetupError {
    SetupError {
        code: SetupErrorCode::InUse,
        message: format!(
            "whether other processes use {} can't be told: {why}",
            device.title()
        ),
        fix: Some("if none does, test it with `--share`".to_owned()),
        cuda_error: None,
    }
}

/// A GPU that computes for somebody is not disturbed. One that only draws is shared, and the report says so.
fn in_use(device: &Device, processes: &[&GpuProcess]) -> Option<SetupError> {
    let computing: Vec<String> = processes
        .iter()
        .filter(|process| process.kind != ProcessKind::Graphics)
        .map(|process| process.pid.to_string())
        .collect();
    let (first, rest) = computing.split_first()?;
    let who = match rest {
        [] => format!("process {first} holds"),
        rest => format!("process {first} and {} more hold", rest.len()),
    };
    Some(SetupError {
        code: SetupErrorCode::InUse,
        message: format!("{who} {}", device.title()),
        fix: Some("end it first, or test beside it with `--share`; its work gets slower then".to_owned()),
        cuda_error: None,
    })
}

#[cfg(test)]
mod tests {
    use pitcrew_core::pci::PciFunction;
    use pitcrew_host::{HostRoots, Roots};

    use super::*;

    fn gpu(address: &str, index: u32, readings: GpuReadings) -> Gpu {
        Gpu {
            index,
            pci: PciFunction {
                address: address.parse().unwrap(),
                vendor_id: 0x10de,
                device_id: 0x2330,
                subsystem_vendor_id: 0,
                subsystem_device_id: 0,
            },
            readings,
        }
    }

    /// Two GPUs of which the driver lists the first, on a machine with so many device nodes, the second bound to `driver`.
    fn left(nodes: usize, driver: &str) -> usize {
        let (first, second) = ("0000:00:06.0", "0000:00:07.0");
        let root = tempfile::tempdir().unwrap();
        let below = |path: &str| root.path().join(path);
        std::fs::create_dir_all(below("dev")).unwrap();
        for name in (0..nodes).map(|number| format!("dev/nvidia{number}")) {
            std::fs::write(below(&name), "").unwrap();
        }
        for name in ["dev/nvidiactl", "dev/nvidia-uvm"] {
            std::fs::write(below(name), "").unwrap();
        }
        let device = below(&format!("sys/bus/pci/devices/{second}"));
        std::fs::create_dir_all(&device).unwrap();
        let target = format!("../../../bus/pci/drivers/{driver}");
        std::os::unix::fs::symlink(target, device.join("driver")).unwrap();
        let mut inventory = Inventory {
            gpus: vec![
                gpu(first, 0, GpuReadings::all_failed("")),
                gpu(second, 1, GpuReadings::all_failed("the driver does not list it")),
            ],
            driver: pitcrew_core::inventory::DriverReadings::none_supported(),
            links: Vec::new(),
            silent: Vec::new(),
        };
        inventory.gpus[0].readings.uuid = Reading::Value("GPU-0".to_owned());
        let host = HostRoots::new(Roots::under(root.path()));
        own(inventory, &[second.parse().unwrap()], &host).gpus.len()
    }

    #[test]
    fn a_gpu_that_the_container_was_not_given_is_none_of_its_own() {
        assert_eq!(left(1, "nvidia"), 1);
    }

    #[test]
    fn a_gpu_that_has_a_device_node_and_is_not_listed_is_lost_and_told() {
        assert_eq!(left(2, "nvidia"), 2);
        // Unless it belongs to a virtual machine.
        assert_eq!(left(2, "vfio-pci"), 1);
    }
}
