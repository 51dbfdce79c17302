//! The driver as a source of snapshots, samples, events and MIG devices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pitcrew_core::gpu::{GpuInstance, MigDevice};
use pitcrew_core::inventory::{DriverReadings, Inventory, Silent};
use pitcrew_core::mig::{GeometryProfile, Placement, Profile};
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::pci::PciFunction;
use pitcrew_core::ports::{GpuError, InventorySource, Mig, Sampling};
use pitcrew_core::{Gpu, Reading};

use crate::code::{Answer, Code, reading};
use crate::device::{Device, unreadable};
use crate::events::{NvmlEvents, XidLog};
use crate::library::{Library, LibraryIdentity};
use crate::{fields, gpm, links, mig, nvlinks, progress, readings};

/// What has become of the driver since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverChange {
    /// Another library, or none, is where this one was found.
    Library,
    /// Another kernel module is loaded, or none.
    Kernel {
        /// Version of the kernel module then.
        from: String,
        /// Version of the kernel module now; `None` where none is loaded.
        to: Option<String>,
    },
}

/// Where GPUs were when they last answered. Clones are the same: who loads the driver after another knows what that
/// one has seen.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// Where each index was.
    at: BTreeMap<u32, PciFunction>,
    /// UUIDs of GPUs that have answered: a lost one is lost and not unknown.
    uuids: BTreeMap<String, u32>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// NVIDIA's management library, loaded and initialised.
///
/// Dropping it gives back every descriptor and mapping, once the [`NvmlEvents`] made by it are dropped too. Every
/// call may take long or for ever on a broken driver: own it by a [`crate::Worker`].
#[derive(Debug)]
pub struct Nvml {
    library: Arc<Library>,
    /// GPUs on the PCI bus, by the caller's scan: what is known of a GPU that doesn't answer.
    pci: Vec<PciFunction>,
    open_kernel_modules: Reading<bool>,
    seen: Places,
    /// GPUs that are not asked, as a call about them hangs on another thread.
    silent: Vec<Silent>,
    samples: BTreeMap<String, gpm::Samples>,
    xids: Arc<XidLog>,
    /// Version of the kernel module when the library was loaded.
    kernel_version: Option<String>,
}

impl Nvml {
    /// Loads the library and initialises it: `file` if given; else what the loader finds as `libnvidia-ml.so.1`;
    /// else the first of these directories that has one.
    ///
    /// Fails with [`GpuError::NoDriver`] where there is no such library, or another one under its name, and with
    /// [`GpuError::DriverFailed`] where the driver does not start.
    pub fn load(file: Option<&Path>, search: &[PathBuf]) -> Result<Self, GpuError> {
        let library = Library::load(file, search)?;
        Ok(Self {
            library: Arc::new(library),
            pci: Vec::new(),
            open_kernel_modules: Reading::NotSupported,
            seen: Places::default(),
            silent: Vec::new(),
            samples: BTreeMap::new(),
            xids: Arc::default(),
            kernel_version: None,
        })
    }

    /// Tells what is on the PCI bus, so that a GPU that has never answered is in the inventory too.
    #[must_use]
    pub fn with_pci(mut self, functions: Vec<PciFunction>) -> Self {
        self.set_pci(functions);
        self
    }

    /// [`Self::with_pci`], for a bus that has changed.
    pub fn set_pci(&mut self, functions: Vec<PciFunction>) {
        self.pci = functions;
    }

    /// Tells where GPUs were seen before.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.seen = places;
        self
    }

    /// Tells which GPUs not to ask about, as a call about each of them hangs on another thread. They are in the
    /// inventory as silent, [`Self::events`] leaves them out, and requests about them fail.
    pub fn set_silent(&mut self, silent: &[Silent]) {
        self.silent = silent.to_vec();
    }

    /// Tells whether the kernel modules are NVIDIA's open ones, which NVML doesn't: `/proc/driver/nvidia/version`
    /// does.
    #[must_use]
    pub fn with_open_kernel_modules(mut self, is_open: Reading<bool>) -> Self {
        self.open_kernel_modules = is_open;
        self
    }

    /// Tells which kernel module is loaded (`/sys/module/nvidia/version`), so that another one is noticed.
    #[must_use]
    pub fn with_kernel_version(mut self, version: Option<&str>) -> Self {
        self.kernel_version = version.map(|version| version.trim().to_owned());
        self
    }

    /// The file that was loaded; `None` where it had been removed by then, or its path can't be told.
    pub fn identity(&self) -> Option<&LibraryIdentity> {
        self.library.identity()
    }

    /// What has changed since it was loaded, if anything; nothing as long as the file's path is not known.
    /// `kernel_version` is that of now; it is compared where
    /// [`Self::with_kernel_version`] has told that of then.
    pub fn change(&self, kernel_version: Option<&str>) -> Option<DriverChange> {
        if !self.library.is_current() {
            return Some(DriverChange::Library);
        }
        let from = self.kernel_version.as_ref()?;
        let to = kernel_version.map(|version| version.trim().to_owned());
        (to.as_ref() != Some(from)).then(|| DriverChange::Kernel {
            from: from.clone(),
            to,
        })
    }

    /// True while [`Self::change`] finds nothing.
    pub fn is_current(&self, kernel_version: Option<&str>) -> bool {
        self.change(kernel_version).is_none()
    }

    /// Starts to listen to all GPUs. XIDs that the result hears of are in [`InventorySource::inventory`]'s snapshots
    /// from now on; without it those have no XIDs, as NVML keeps none.
    pub fn events(&self) -> Result<NvmlEvents, GpuError> {
        let silent = self.silent.iter().map(|silent| silent.index);
        NvmlEvents::new(&self.library, &self.xids, silent.collect())
    }

    fn device(&self, uuid: &str) -> Result<Device<'_>, GpuError> {
        let index = self.seen.lock().uuids.get(uuid).copied();
        let silent = self.silent.iter().find(|silent| Some(silent.index) == index);
        if let Some(silent) = silent {
            return Err(GpuError::Silent {
                gpu: uuid.to_owned(),
                reason: silent.reason.clone(),
            });
        }
        progress::about(index);
        self.library.device_by_uuid(uuid).map_err(|code| match code {
            Code::NOT_FOUND | Code::INVALID_ARGUMENT if index.is_some() => GpuError::GpuLost(uuid.to_owned()),
            Code::NOT_FOUND | Code::INVALID_ARGUMENT => GpuError::NoSuchGpu(uuid.to_owned()),
            code => code.of_request(uuid, "being asked"),
        })
    }

    /// One GPU of the snapshot; `None` where not even its PCI function is known, yet.
    fn read(library: &Library, index: u32, xids: &XidLog) -> Answer<Gpu> {
        progress::about(Some(index));
        let device = library.device(index)?;
        let pci = device.pci()?;
        Ok(Gpu {
            index,
            pci,
            readings: readings::read(device, |uuid| xids.of(uuid)),
        })
    }

    /// PCI functions for GPUs that don't answer: where they were seen, or else those of the bus that no other GPU
    /// has, in the order of the bus, which is the driver's.
    fn place(&self, mut gpus: Vec<Result<Gpu, (u32, String)>>) -> Vec<Gpu> {
        let seen = self.seen.lock();
        let mut taken: Vec<_> = gpus
            .iter()
            .filter_map(|gpu| gpu.as_ref().ok().map(|gpu| gpu.pci.address))
            .collect();
        for gpu in &mut gpus {
            if let Err((index, reason)) = gpu
                && let Some(pci) = seen.at.get(index).filter(|pci| !taken.contains(&pci.address))
            {
                taken.push(pci.address);
                *gpu = Ok(unreadable(*index, *pci, reason));
            }
        }
        let mut free = self.pci.iter().filter(|pci| !taken.contains(&pci.address));
        gpus.into_iter()
            .filter_map(|gpu| match gpu {
                Ok(gpu) => Some(gpu),
                Err((index, reason)) => free.next().map(|pci| unreadable(index, *pci, &reason)),
            })
            .collect()
    }

    fn links(&self, gpus: &[Gpu]) -> Vec<pitcrew_core::inventory::Link> {
        if gpus.len() < 2 || progress::is_left() {
            return Vec::new();
        }
        let addresses: Vec<_> = gpus.iter().map(|gpu| gpu.pci.address).collect();
        let ends: Vec<links::End<'_>> = gpus
            .iter()
            .filter(|gpu| !self.is_silent(gpu.index))
            .filter_map(|gpu| {
                progress::about(Some(gpu.index));
                let device = self.library.device(gpu.index).ok()?;
                Some(links::End {
                    index: gpu.index,
                    address: gpu.pci.address,
                    device,
                    links: links::far_ends(device, &addresses),
                })
            })
            .collect();
        links::links(&ends)
    }

    fn is_silent(&self, index: u32) -> bool {
        self.silent.iter().any(|silent| silent.index == index)
    }
}

impl InventorySource for Nvml {
    fn inventory(&mut self) -> Result<Inventory, GpuError> {
        let library = &*self.library;
        progress::about(None);
        let count = library
            .count()
            .map_err(|code| GpuError::DriverFailed(format!("counting the GPUs: {code}")))?;
        let read: Vec<_> = (0..count)
            .map(|index| {
                if let Some(silent) = self.silent.iter().find(|silent| silent.index == index) {
                    return Err((index, silent.reason.clone()));
                }
                if progress::is_left() {
                    return Err((index, "another thread asks it now".to_owned()));
                }
                Self::read(library, index, &self.xids).map_err(|code| (index, code.to_string()))
            })
            .collect();
        progress::about(None);
        {
            let mut seen = self.seen.lock();
            for gpu in read.iter().flatten() {
                seen.at.insert(gpu.index, gpu.pci);
                if let Some(uuid) = gpu.readings.uuid.value() {
                    seen.uuids.insert(uuid.clone(), gpu.index);
                }
            }
        }
        let gpus = self.place(read);
        let silent = self.silent.iter();
        let silent = silent.filter(|silent| silent.index < count).cloned().collect();
        Ok(Inventory {
            driver: DriverReadings {
                version: reading(library.driver_version()),
                nvml_version: reading(library.nvml_version()),
                cuda: reading(library.cuda()),
                open_kernel_modules: self.open_kernel_modules.clone(),
            },
            links: self.links(&gpus),
            gpus,
            silent,
        })
    }
}

impl Sampling for Nvml {
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        let device = self.device(uuid)?;
        fields::read(device, names).map_err(|code| code.of_request(uuid, "field values"))
    }

    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        let device = self.device(uuid)?;
        nvlinks::read(device).map_err(|code| code.of_request(uuid, "NVLinks"))
    }

    /// The first call for a GPU has nothing to compare with: each figure is [`Reading::Failed`] and says so. Two
    /// calls should lie 100 ms apart or more.
    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        let failed = |code: Code| code.of_request(uuid, "profiling (GPM)");
        // Taken out, so that a failure gives the samples back.
        let kept = self.samples.remove(uuid);
        let device = self.device(uuid)?;
        // A MIG device is sampled by its GPU and the number of its instance.
        let (device, gpu_instance) = if uuid.starts_with("MIG-") {
            let instance = device.gpu_instance_id().map_err(failed)?;
            (device.parent().map_err(failed)?, Some(instance))
        } else {
            (device, None)
        };
        if !gpm::is_supported(device).map_err(failed)? {
            return Err(failed(Code::NOT_SUPPORTED));
        }
        let mut samples = match kept {
            Some(samples) => samples,
            None => gpm::Samples::new(&self.library).map_err(failed)?,
        };
        let figures = samples.read(device, gpu_instance, metrics).map_err(failed)?;
        self.samples.insert(uuid.to_owned(), samples);
        Ok(figures)
    }
}

impl Mig for Nvml {
    fn set_mode(&mut self, uuid: &str, enabled: bool) -> Result<(), GpuError> {
        mig::set_mode(self.device(uuid)?, uuid, enabled)
    }

    /// While MIG is off the driver gives profiles without their placements.
    fn profiles(&mut self, uuid: &str) -> Result<Vec<GeometryProfile>, GpuError> {
        mig::profiles(self.device(uuid)?, uuid)
    }

    fn gpu_instances(&mut self, uuid: &str) -> Result<Vec<GpuInstance>, GpuError> {
        mig::gpu_instances(self.device(uuid)?, uuid)
    }

    fn create_gpu_instance(
        &mut self,
        uuid: &str,
        profile: &Profile,
        placement: Option<Placement>,
    ) -> Result<GpuInstance, GpuError> {
        mig::create_gpu_instance(self.device(uuid)?, uuid, profile, placement)
    }

    fn create_compute_instance(
        &mut self,
        uuid: &str,
        gpu_instance: u32,
        profile: &Profile,
    ) -> Result<MigDevice, GpuError> {
        mig::create_compute_instance(self.device(uuid)?, uuid, gpu_instance, profile)
    }

    fn destroy_compute_instance(
        &mut self,
        uuid: &str,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), GpuError> {
        mig::destroy_compute_instance(self.device(uuid)?, uuid, gpu_instance, compute_instance)
    }

    fn destroy(&mut self, uuid: &str, gpu_instance: u32) -> Result<(), GpuError> {
        mig::destroy(self.device(uuid)?, uuid, gpu_instance)
    }
}
