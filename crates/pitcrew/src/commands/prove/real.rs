//! The GPUs of this machine, through its driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pitcrew_core::Inventory;
use pitcrew_core::inventory::Link;
use pitcrew_core::proof::{Counters, Device, Driver, PeerPath, SetupError, SetupErrorCode, XidEvent};
use pitcrew_host::libraries;
use pitcrew_prove::cuda::{self, Gpu, Library};
use pitcrew_prove::device::{self, DeviceFacts};
use pitcrew_prove::lane::Lane;
use pitcrew_prove::pace::Wall;
use pitcrew_prove::peers::{self, Peers};
use pitcrew_prove::run::{self, Options, Outcomes, Place};
use pitcrew_prove::telemetry::{Unwatched, Watch};

use super::rack::{Ends, Rack, Target, route};
use super::watcher::{OfOne, Seen};

/// This machine.
pub(super) struct Machine {
    library: Arc<Library>,
    /// What CUDA shows, by its own number.
    visible: Vec<DeviceFacts>,
    /// None where nobody watches.
    seen: Option<Arc<Seen>>,
    links: Vec<Link>,
    /// Whether the driver compiles all kernels itself.
    ptx_alone: bool,
    /// How many GPUs it compiles for now.
    compiling: Arc<AtomicUsize>,
    /// When the time of the run began.
    begin: Instant,
    lane: Lane,
}

impl Machine {
    /// Loads the driver, of which nobody has been told yet what it said of its GPUs: what the loader finds, or where the
    /// machine's root is another directory, what lies there.
    pub(super) fn load(root: &Path, ptx_alone: bool, begin: Instant) -> Result<Self, cuda::SetupError> {
        let library = Arc::new(Library::open(library_below(root).as_deref(), &root.join("dev"))?);
        let visible = (0..library.devices())
            .map(|ordinal| Gpu::facts_of(&library, ordinal))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            library,
            visible,
            seen: None,
            links: Vec::new(),
            ptx_alone,
            compiling: Arc::default(),
            lane: Lane::default(),
            begin,
        })
    }

    /// Has its GPUs watched, as the inventory knows them.
    pub(super) fn watched(mut self, seen: Arc<Seen>, inventory: &Inventory) -> Self {
        self.seen = Some(seen);
        self.links.clone_from(&inventory.links);
        self
    }

    pub(super) fn driver(&self, inventory: Option<&Inventory>) -> Driver {
        Driver {
            version: inventory.and_then(|inventory| inventory.driver.version.value().cloned()),
            cuda: Some(self.library.version().to_string()),
        }
    }

    /// What CUDA shows, where nobody else can tell which GPUs there are.
    pub(super) fn targets(&self) -> Vec<Target> {
        let targets = (0..).zip(&self.visible).map(|(index, facts)| Target {
            device: with_facts(
                Device {
                    index,
                    uuid: facts.uuid.clone(),
                    name: facts.name.clone(),
                    pci_address: facts.pci.map(|pci| pci.to_string()),
                    ..Device::default()
                },
                facts,
            ),
            gpu_uuid: facts.uuid.clone(),
            processes: Vec::new(),
            setup_error: None,
            unread: Vec::new(),
            is_named: false,
        });
        targets.collect()
    }

    /// Of the targets those that CUDA shows to this process. One that was asked for and isn't shown stays, with the
    /// reason.
    pub(super) fn shown(&self, targets: Vec<Target>) -> Vec<Target> {
        let mut left = Vec::new();
        for mut target in targets {
            match self.facts(&target) {
                Some((_, facts)) => target.device = with_facts(target.device, facts),
                None if target.setup_error.is_some() => {}
                None if target.is_named || target.device.mig.is_none() => {
                    let name = &target.device.uuid;
                    target.setup_error = Some(SetupError {
                        code: SetupErrorCode::NoDevice,
                        message: format!("CUDA does not show {} to this process", target.device.title()),
                        fix: Some(format!("set `CUDA_VISIBLE_DEVICES={name}`")),
                        cuda_error: None,
                    });
                }
                // CUDA shows one MIG device to a process; the others are another process's.
                None => continue,
            }
            left.push(target);
        }
        left
    }

    fn facts(&self, target: &Target) -> Option<(u32, &DeviceFacts)> {
        (0..)
            .zip(&self.visible)
            .find(|(_, facts)| facts.uuid == target.device.uuid)
    }

    fn gpu(&self, target: &Target) -> Result<Gpu, SetupError> {
        let (ordinal, _) = self.facts(target).ok_or_else(|| SetupError {
            code: SetupErrorCode::NoDevice,
            message: format!("CUDA does not show {} to this process", target.device.title()),
            fix: None,
            cuda_error: None,
        })?;
        let mut gpu = Gpu::open(&self.library, ordinal).map_err(|error| explain(&error, None))?;
        gpu.set_ptx_alone(self.ptx_alone);
        gpu.set_compiling(Arc::clone(&self.compiling));
        gpu.try_kernels().map_err(|error| explain(&error, None))?;
        Ok(gpu)
    }
}

impl Rack for Machine {
    fn work(&self, target: &Target, options: &Options, ends: Ends<'_>) -> Result<Outcomes, SetupError> {
        let device = self.gpu(target)?;
        let mut watch: Box<dyn Watch> = match &self.seen {
            Some(seen) => Box::new(OfOne {
                seen: Arc::clone(seen),
                uuid: target.gpu_uuid.clone(),
            }),
            None => Box::new(Unwatched),
        };
        Ok(run::run(
            Place {
                device: &device,
                pace: &Wall::since(self.begin),
                lane: &self.lane,
                watch: &mut *watch,
                is_cancelled: ends.is_cancelled,
                tell: ends.tell,
            },
            options,
        ))
    }

    fn is_compiling(&self) -> bool {
        self.compiling.load(Ordering::Relaxed) > 0
    }

    fn after(&self, targets: &[Target]) -> Vec<(Counters, Vec<XidEvent>)> {
        let Some(seen) = &self.seen else { return Vec::new() };
        seen.wait_for_next();
        let elapsed = self.begin.elapsed();
        let of_one = |target: &Target| {
            let mut one = OfOne {
                seen: Arc::clone(seen),
                uuid: target.gpu_uuid.clone(),
            };
            (one.seen_counters(), one.xids(elapsed))
        };
        targets.iter().map(of_one).collect()
    }

    fn last_xid(&self, target: &Target) -> Option<u32> {
        self.seen.as_ref()?.last_xid(&target.gpu_uuid)
    }

    fn peers(
        &self,
        targets: &[Target],
        time: Duration,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<PeerPath>, SetupError> {
        let gpus: Vec<Gpu> = targets
            .iter()
            .map(|target| self.gpu(target))
            .collect::<Result<_, _>>()?;
        let devices: Vec<&dyn device::Device> = gpus.iter().map(|gpu| gpu as &dyn device::Device).collect();
        debug_assert!(
            devices
                .iter()
                .zip(targets)
                .all(|(gpu, target)| gpu.facts().uuid == target.device.uuid)
        );
        Ok(peers::run(
            &Peers {
                devices: &devices,
                pace: &Wall::start(),
                is_cancelled,
                route: &|from, to| route(&self.links, &targets[from], &targets[to]),
            },
            time,
        ))
    }
}

/// The driver's library below a root that isn't this process's own, as in the agent's pod.
fn library_below(root: &Path) -> Option<PathBuf> {
    let below = |directory: &&str| root.join(directory.trim_start_matches('/')).join(cuda::SONAME);
    let mut found = libraries::DIRECTORIES.iter().map(below);
    (root != Path::new("/")).then(|| found.find(|path| path.exists()))?
}

fn with_facts(device: Device, facts: &DeviceFacts) -> Device {
    Device {
        compute_capability: Some(facts.compute_capability),
        sm_count: Some(facts.sms),
        memory_total_bytes: device.memory_total_bytes.or(Some(facts.memory_bytes)),
        clock_sm_max_mhz: device
            .clock_sm_max_mhz
            .or(Some(facts.sm_clock_mhz))
            .filter(|&mhz| mhz > 0),
        ..device
    }
}

/// Why the driver can't be used, as a report has it: what happened before the semicolon, what to do behind it.
pub(super) fn explain(error: &cuda::SetupError, inventory: Option<&Inventory>) -> SetupError {
    use cuda::SetupError as Cuda;
    let text = error.to_string();
    let (message, fix) = match text.rsplit_once("; ") {
        Some((message, fix)) => (message.to_owned(), Some(fix.to_owned())),
        None => (text, None),
    };
    let (code, cuda_error) = match error {
        Cuda::NothingInjected => (SetupErrorCode::NoDriver, None),
        Cuda::NoLibrary(_) | Cuda::NotCuda { .. } => (SetupErrorCode::NoLibrary, None),
        Cuda::NoDeviceFiles => (SetupErrorCode::NoDevice, None),
        Cuda::NoDevice => (SetupErrorCode::NoDevice, Some(100)),
        Cuda::NoSuchDevice => (SetupErrorCode::NoDevice, Some(101)),
        Cuda::FabricNotReady => (SetupErrorCode::FabricNotReady, Some(802)),
        Cuda::VersionMismatch => (SetupErrorCode::DriverMismatch, Some(803)),
        Cuda::CompatRefused(_) => (SetupErrorCode::DriverMismatch, Some(804)),
        Cuda::NoMemory => (SetupErrorCode::OutOfMemory, Some(2)),
        Cuda::InUse => (SetupErrorCode::InUse, Some(46)),
        Cuda::DriverTooOld(_) => (SetupErrorCode::DriverTooOld, None),
        Cuda::NoKernel(_) | Cuda::NoCompiler(_) => (SetupErrorCode::NoKernel, None),
        Cuda::NotPermitted => (SetupErrorCode::NotPermitted, Some(800)),
        Cuda::Failed { code, .. } => (SetupErrorCode::Other, u32::try_from(*code).ok()),
    };
    let is_empty_mig = |inventory: &Inventory| {
        inventory.gpus.iter().any(|gpu| {
            gpu.readings.mig_mode.value().is_some_and(|mode| mode.current)
                && gpu.readings.mig_devices.value().is_some_and(Vec::is_empty)
        })
    };
    // CUDA says the same of both; the management library knows which it is.
    if matches!(error, Cuda::NoDevice) && inventory.is_some_and(is_empty_mig) {
        return SetupError {
            code: SetupErrorCode::NoMigInstance,
            message: "MIG is on and there is no instance".to_owned(),
            fix: Some("create one with `nvidia-smi mig -cgi <profile> -C`, or turn MIG off".to_owned()),
            cuda_error,
        };
    }
    SetupError {
        code,
        message,
        fix,
        cuda_error,
    }
}
