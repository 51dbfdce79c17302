//! Imaginary pods: through the kubelet's door, and as processes on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pitcrew_core::plugin::uuid_of;
use pitcrew_core::ports::HostFs as _;
use pitcrew_kubelet::fake::{self, AdmitError, Known};
use pitcrew_scenario::{Change, Machine};

use crate::cluster;
use crate::given::Given;
use crate::node::Node;

/// Namespace of all imaginary pods.
pub const NAMESPACE: &str = "default";
/// The container of each.
pub const CONTAINER: &str = "main";
/// Process ids begin here; a scenario's own are lower.
const FIRST_PID: u32 = 20_000;
/// GPU memory that an imaginary process holds, in bytes.
const MEMORY: u64 = 1 << 30;

/// A pod that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// What its container got.
    pub given: Given,
    /// True where a process of it holds every one of its devices, so that the driver takes none of them away.
    pub holds: bool,
}

/// A process of an imaginary pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Position of its GPU in the driver's order.
    pub gpu: u32,
    /// The pod.
    pub pod: String,
}

/// Processes of all pods of a node. A handle: clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Processes(Arc<Mutex<Started>>);

#[derive(Debug, Default)]
struct Started {
    count: u32,
    running: Vec<Process>,
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Started> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that run now.
    pub fn running(&self) -> Vec<Process> {
        self.lock().running.clone()
    }
}

/// Where a device is.
struct Place {
    gpu: u32,
    minor: u32,
    instance: Option<(u32, u32)>,
}

/// Where a device is; asked of the machine itself, which never hangs.
fn place(machine: &Machine, id: &str) -> Option<Place> {
    let uuid = uuid_of(id);
    (0..machine.gpu_count()).find_map(|index| {
        let gpu = machine.gpu(index)?;
        let at = |instance| {
            Some(Place {
                gpu: index,
                minor: *gpu.readings.minor.value()?,
                instance,
            })
        };
        if gpu.uuid == uuid {
            return at(None);
        }
        let devices = gpu.readings.mig_devices.value()?;
        let device = devices.iter().find(|device| device.uuid == uuid)?;
        at(Some((device.gpu_instance, device.compute_instance)))
    })
}

impl Node {
    /// The devices that the kubelet knows, by resource.
    pub fn resources(&self) -> BTreeMap<String, Vec<Known>> {
        resources(self.kubelet())
    }

    /// Admits a pod with one container that asks for these resources, and starts a process on each device that it gets.
    ///
    /// # Errors
    /// Why the kubelet doesn't admit it.
    pub async fn admit(&self, name: &str, limits: &[(&str, usize)]) -> Result<Pod, AdmitError> {
        let pod = fake::Pod::new(NAMESPACE, name).container(CONTAINER, limits);
        let started = self.kubelet().admit(&pod).await?;
        let ids: Vec<String> = started
            .values()
            .flat_map(|container| container.devices.values().flatten().cloned())
            .collect();
        let answers: Vec<_> = started.into_values().map(|container| container.options).collect();
        let given = Given::look_up(self.files(), ids, &answers);
        let holds = self.start_processes(name, &given.ids);
        // It is for those who look at the cluster; what a pod holds is the kubelet's.
        let _ = cluster::show_pod(self.api(), self.name(), (NAMESPACE, name), limits);
        Ok(Pod {
            name: name.to_owned(),
            given,
            holds,
        })
    }

    /// Ends a pod: its processes, and its hold on devices. False where there is none.
    pub fn remove(&self, name: &str) -> bool {
        let mut processes = self.processes().lock();
        processes.running.retain(|process| {
            let is_its = process.pod == name;
            if is_its {
                // The GPU may have been lost, or have forgotten its processes in a reboot.
                let _ = self.machine().change(&Change::EndProcess {
                    gpu: process.gpu,
                    pid: process.pid,
                });
            }
            !is_its
        });
        drop(processes);
        let _ = cluster::hide_pod(self.api(), NAMESPACE, name);
        self.kubelet().remove_pod(NAMESPACE, name)
    }

    /// The device nodes of GPUs and MIG devices that a container with these devices must see, and no others, in order.
    pub fn nodes_of(&self, ids: &[String]) -> Vec<String> {
        let mut nodes = BTreeSet::new();
        for place in ids.iter().filter_map(|id| place(self.machine(), id)) {
            nodes.insert(format!("/dev/nvidia{}", place.minor));
            if let Some((instance, compute)) = place.instance {
                let dir = format!(
                    "/proc/driver/nvidia/capabilities/gpu{}/mig/gi{instance}",
                    place.minor
                );
                for file in [format!("{dir}/access"), format!("{dir}/ci{compute}/access")] {
                    nodes.extend(self.capability(Path::new(&file)));
                }
            }
        }
        nodes.into_iter().collect()
    }

    /// The node that a capability file of the driver stands for.
    fn capability(&self, file: &Path) -> Option<String> {
        let text = String::from_utf8(self.files().read(file).ok()?).ok()?;
        let minor = text
            .lines()
            .find_map(|line| line.strip_prefix("DeviceFileMinor: "))?;
        Some(format!("/dev/nvidia-caps/nvidia-cap{minor}"))
    }

    /// Starts a process on each device; whether all of them could be.
    fn start_processes(&self, pod: &str, ids: &[String]) -> bool {
        let mut processes = self.processes().lock();
        let mut all = true;
        for place in ids.iter().map(|id| place(self.machine(), id)) {
            let Some(place) = place else {
                all = false;
                continue;
            };
            processes.count += 1;
            let pid = FIRST_PID + processes.count;
            let start = Change::StartProcess {
                gpu: place.gpu,
                pid,
                memory_bytes: Some(MEMORY),
                gpu_instance: place.instance.map(|(instance, _)| instance),
                compute_instance: place.instance.map(|(_, compute)| compute),
            };
            // What the scenario forbids doesn't happen: a process where none can be listed.
            if self.machine().change(&start).is_ok() {
                processes.running.push(Process {
                    pid,
                    gpu: place.gpu,
                    pod: pod.to_owned(),
                });
            } else {
                all = false;
            }
        }
        all
    }
}

/// The devices that a kubelet knows, by resource.
pub(crate) fn resources(kubelet: &fake::Kubelet) -> BTreeMap<String, Vec<Known>> {
    let names = kubelet.capacity().into_keys();
    names
        .map(|name| {
            let devices = kubelet.devices(&name);
            (name, devices)
        })
        .collect()
}
