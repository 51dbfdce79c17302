//! The live state of an imaginary node.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use pitcrew_core::catalog::{Card, Class};
use pitcrew_core::gpu::{Gpu, GpuReadings};
use pitcrew_core::inventory::{CudaVersion, DriverReadings, Inventory, Link};
use pitcrew_core::mig::Geometry;
use pitcrew_core::pci::PciFunction;
use pitcrew_core::ports::{GpuError, GpuEvent};
use pitcrew_core::{Reading, mig};

use crate::calls::{Latencies, matches};
use crate::hostfs::Tree;
use crate::mig::GpuInstance;
use crate::scenario::{GpuSpec, Scenario};
use crate::{identity, value};

/// What NVML says for a GPU that no longer answers.
pub(crate) const LOST: &str = "GPU is lost";

/// Why a reading has no value although the GPU would give one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Override {
    /// It fails for this reason.
    Failed(String),
    /// The device doesn't have it.
    NotSupported,
}

/// Calls that hang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hang {
    /// Name of the call, or its beginning and `*`.
    pub(crate) call: String,
    /// On this GPU only.
    pub(crate) gpu: Option<u32>,
}

/// The driver.
#[derive(Debug)]
pub(crate) struct DriverState {
    pub(crate) version: String,
    pub(crate) cuda: CudaVersion,
    pub(crate) open_kernel_modules: bool,
    /// Why it doesn't answer.
    pub(crate) fault: Option<String>,
    /// It is not loaded, and its library not there.
    pub(crate) missing: bool,
    /// Directory of its libraries.
    pub(crate) libraries: PathBuf,
}

/// What a GPU does when idle; load is added to it.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    pub(crate) temperature_c: i32,
    pub(crate) memory_temperature_c: Option<i32>,
    pub(crate) power_mw: u32,
    pub(crate) clock_sm_mhz: u32,
    pub(crate) performance_state: u32,
}

/// One GPU.
#[derive(Debug)]
pub(crate) struct GpuState {
    pub(crate) card: &'static Card,
    pub(crate) geometry: Option<Geometry>,
    pub(crate) pci: PciFunction,
    /// NUMA node of the slot.
    pub(crate) numa_node: u32,
    pub(crate) uuid: String,
    pub(crate) minor: u32,
    /// What the GPU would say; MIG, processes and XIDs live here too.
    pub(crate) base: GpuReadings,
    pub(crate) overrides: BTreeMap<&'static str, Override>,
    /// GPU instances by number; the reading `mig_devices` follows from them.
    pub(crate) instances: Vec<GpuInstance>,
    /// True when it has fallen off the bus.
    pub(crate) lost: bool,
    pub(crate) idle: Idle,
    /// Load put on it by [`crate::Change::Load`], in percent.
    pub(crate) load: Option<u32>,
    pub(crate) fields: BTreeMap<String, u64>,
    pub(crate) gpm: BTreeMap<u32, f64>,
    pub(crate) latencies: Latencies,
}

/// Who is told of events.
#[derive(Debug, Default)]
pub(crate) struct Subscriber {
    pub(crate) queue: VecDeque<GpuEvent>,
    /// The task that waits for the next one.
    pub(crate) waker: Option<Waker>,
}

/// A whole node.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) node: String,
    pub(crate) driver: DriverState,
    pub(crate) gpus: Vec<GpuState>,
    pub(crate) links: Vec<Link>,
    /// True where the GPUs are connected through `NVSwitch`es.
    pub(crate) nvswitch: bool,
    pub(crate) hangs: Vec<Hang>,
    pub(crate) subscribers: BTreeMap<u64, Subscriber>,
    pub(crate) subscriptions: u64,
    /// MIG devices ever created, from which their UUIDs follow.
    pub(crate) created: u64,
    pub(crate) now: SystemTime,
    /// The files of this moment, made when first looked at.
    tree: Option<Arc<Tree>>,
}

impl State {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let Scenario {
            name,
            driver,
            gpus,
            links,
            nvswitch,
            hangs,
            ..
        } = scenario;
        let mut created = 0;
        let gpus = gpus
            .into_iter()
            .zip(0..)
            .map(|(spec, index)| GpuState::new(spec, index, &name, &mut created))
            .collect();
        Self {
            driver: DriverState {
                version: driver.version,
                cuda: driver.cuda,
                open_kernel_modules: driver.open_kernel_modules,
                fault: driver.fault,
                missing: false,
                libraries: "/usr/lib/x86_64-linux-gnu".into(),
            },
            gpus,
            links,
            nvswitch,
            hangs: hangs.into_iter().map(|call| Hang { call, gpu: None }).collect(),
            subscribers: BTreeMap::new(),
            subscriptions: 0,
            created,
            // 2026-01-01: any moment does, but always the same one.
            now: SystemTime::UNIX_EPOCH + Duration::from_hours(56 * 365 * 24 + 14 * 24),
            tree: None,
            node: name,
        }
    }

    /// Forgets what was derived from the state before it changed.
    pub(crate) fn touch(&mut self) {
        self.tree = None;
    }

    pub(crate) fn tree(&mut self) -> Arc<Tree> {
        if let Some(tree) = &self.tree {
            return Arc::clone(tree);
        }
        let tree = Arc::new(Tree::of(self));
        self.tree = Some(Arc::clone(&tree));
        tree
    }

    pub(crate) fn hangs(&self, call: &str, gpu: Option<u32>) -> bool {
        self.hangs
            .iter()
            .any(|hang| matches(&hang.call, call) && (hang.gpu.is_none() || gpu.is_none() || hang.gpu == gpu))
    }

    /// Fails if nothing can be asked at all.
    pub(crate) fn driver_answers(&self) -> Result<(), GpuError> {
        if self.driver.missing {
            return Err(GpuError::NoDriver(
                "the imaginary driver is not loaded".to_owned(),
            ));
        }
        self.driver
            .fault
            .as_ref()
            .map_or(Ok(()), |reason| Err(GpuError::DriverFailed(reason.clone())))
    }

    /// Position of the GPU with this UUID, if it answers.
    pub(crate) fn position(&self, uuid: &str) -> Result<usize, GpuError> {
        self.driver_answers()?;
        let found = self.gpus.iter().position(|gpu| gpu.uuid == uuid);
        let at = found.ok_or_else(|| GpuError::NoSuchGpu(uuid.to_owned()))?;
        if self.gpus[at].lost {
            Err(GpuError::GpuLost(uuid.to_owned()))
        } else {
            Ok(at)
        }
    }

    pub(crate) fn inventory(&self) -> Result<Inventory, GpuError> {
        self.driver_answers()?;
        let driver = &self.driver;
        Ok(Inventory {
            driver: DriverReadings {
                version: Reading::Value(driver.version.clone()),
                // NVML comes with the driver: `13.580.159.04` for CUDA 13 and 580.159.04.
                nvml_version: Reading::Value(format!("{}.{}", driver.cuda.major, driver.version)),
                cuda: Reading::Value(driver.cuda),
                open_kernel_modules: Reading::Value(driver.open_kernel_modules),
            },
            gpus: self
                .gpus
                .iter()
                .zip(0..)
                .map(|(gpu, index)| Gpu {
                    index,
                    pci: gpu.pci,
                    readings: gpu.readings(),
                })
                .collect(),
            links: self.links.clone(),
            silent: Vec::new(),
        })
    }

    /// The next event of a subscriber, if there is one.
    pub(crate) fn pop(&mut self, subscriber: u64) -> Option<GpuEvent> {
        self.subscribers.get_mut(&subscriber)?.queue.pop_front()
    }

    pub(crate) fn tell(&mut self, event: &GpuEvent) {
        for subscriber in self.subscribers.values_mut() {
            subscriber.queue.push_back(event.clone());
        }
    }
}

impl GpuState {
    pub(crate) fn new(spec: GpuSpec, index: u32, node: &str, created: &mut u64) -> Self {
        let mut base = spec.readings;
        let what = format!("{node}/gpu/{index}");
        // A UUID in the scenario's own words is for one GPU; whoever repeats it in a group gets what they wrote.
        let uuid = base
            .uuid
            .value()
            .cloned()
            .unwrap_or_else(|| identity::uuid("GPU", &what));
        base.uuid = Reading::Value(uuid.clone());
        if base.serial.value().is_none() && spec.card.class != Class::Consumer {
            base.serial = Reading::Value(identity::serial(&what));
        }
        let minor = base.minor.value().copied().unwrap_or(index);
        base.minor = Reading::Value(minor);
        let idle = Idle {
            temperature_c: base.temperature_c.value().copied().unwrap_or(40),
            memory_temperature_c: base.memory_temperature_c.value().copied(),
            power_mw: base.power_mw.value().copied().unwrap_or(10_000),
            clock_sm_mhz: base.clock_sm_mhz.value().copied().unwrap_or(210),
            performance_state: base.performance_state.value().copied().unwrap_or(0),
        };
        let mut gpu = Self {
            card: spec.card,
            geometry: mig::geometry(spec.card),
            pci: spec.pci,
            numa_node: spec.numa_node,
            uuid,
            minor,
            base,
            overrides: spec.overrides,
            instances: Vec::new(),
            lost: spec.lost,
            idle,
            load: None,
            fields: spec.fields,
            gpm: spec.gpm,
            latencies: spec.latencies,
        };
        for wanted in spec.mig {
            // `resolve` has made sure that all of them fit.
            if gpu
                .place(&wanted.profile, wanted.placement, node, created)
                .is_err()
            {
                break;
            }
        }
        gpu
    }

    /// What the GPU says now.
    pub(crate) fn readings(&self) -> GpuReadings {
        if self.lost {
            return GpuReadings::all_failed(LOST);
        }
        let mut readings = self.base.clone();
        let held: u64 = self.base.processes.value().map_or(0, |all| {
            all.iter()
                .filter_map(|process| process.memory_bytes.value())
                .sum()
        });
        readings.memory_used_bytes = readings.memory_used_bytes.map(|used| used + held);
        readings.memory_free_bytes = readings.memory_free_bytes.map(|free| free.saturating_sub(held));
        if let Reading::Value(devices) = &mut readings.mig_devices {
            for device in devices {
                device.memory_used_bytes = Reading::Value(self.held_in(device.gpu_instance));
            }
        }
        if self.mig_on() {
            // NVML gives no utilisation of a GPU that is cut up.
            readings.utilization_gpu_percent = Reading::NotSupported;
            readings.utilization_memory_percent = Reading::NotSupported;
        }
        for (field, reason) in &self.overrides {
            // The names were checked when the overrides were made.
            let _known = match reason {
                Override::Failed(reason) => readings.fail(field, reason),
                Override::NotSupported => value::unsupport(&mut readings, field),
            };
        }
        readings
    }

    /// Memory that the processes in a GPU instance hold, as far as it is known.
    pub(crate) fn held_in(&self, gpu_instance: u32) -> u64 {
        let processes = self.base.processes.value().map_or(&[][..], Vec::as_slice);
        processes
            .iter()
            .filter(|process| process.gpu_instance == Some(gpu_instance))
            .filter_map(|process| process.memory_bytes.value())
            .sum()
    }

    /// True when MIG is on now.
    pub(crate) fn mig_on(&self) -> bool {
        self.base.mig_mode.value().is_some_and(|mode| mode.current)
    }

    /// PCI class: a card with a display is a VGA controller, any other a 3D controller.
    pub(crate) fn pci_class(&self) -> u32 {
        if self.card.class == Class::Datacentre {
            0x03_02_00
        } else {
            0x03_00_00
        }
    }
}

/// The UUID of the next MIG device of this node.
pub(crate) fn fresh_mig_uuid(node: &str, created: &mut u64) -> String {
    *created += 1;
    identity::uuid("MIG", &format!("{node}/mig/{created}"))
}
