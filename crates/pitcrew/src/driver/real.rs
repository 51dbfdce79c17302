//! This machine's driver, asked anew each time, and loaded anew when it has been replaced.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pitcrew_cli::GlobalArgs;
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::Silent;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::pci::PciFunction;
use pitcrew_core::ports::{Events, GpuError, HostFs as _, InventorySource, Sampling};
use pitcrew_core::{Gpu, Reading};
use pitcrew_host::{HostRoots, Roots, driver, libraries};
use pitcrew_nvml::{Nvml, NvmlEvents, Places, Progress, SONAME};

use super::Seen;
use super::listener::{Listener, Tell};
use crate::error::Error;
use crate::pci;
use crate::view::report::Source;

/// How many events are taken at one look: a storm of them must not keep it from ending.
const MOST_EVENTS: usize = 256;

/// This machine's driver.
#[derive(Debug)]
pub(crate) struct Real {
    file: Option<PathBuf>,
    root: PathBuf,
    known: Known,
    /// What this thread asks.
    progress: Progress,
    loaded: Option<Loaded>,
}

/// What stays when another thread takes over from one that hangs.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// What is to become of events.
    events: Arc<Mutex<Wanted>>,
    places: Places,
}

/// What is to become of events.
#[derive(Debug, Clone, Default)]
enum Wanted {
    /// Nobody listens.
    #[default]
    Nothing,
    /// The XIDs are in every look.
    Log,
    /// Somebody is told of each when it happens.
    Tell(Tell),
}

/// The library and who listens. Who listens goes first: they hold the library too.
#[derive(Debug)]
struct Loaded {
    events: Option<NvmlEvents>,
    listener: Option<Listener>,
    nvml: Nvml,
    /// GPUs that were silent when it was begun to listen.
    unheard: Vec<u32>,
}

impl Known {
    /// From the next look on, XIDs are told too.
    pub(super) fn listen(&self) {
        self.set(Wanted::Log);
    }

    /// From the next look on, whoever this is is told of every event when it happens.
    pub(super) fn tell(&self, tell: Tell) {
        self.set(Wanted::Tell(tell));
    }

    fn set(&self, wanted: Wanted) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
    }

    fn events(&self) -> Wanted {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Real {
    pub(super) fn new(global: &GlobalArgs, known: Known, progress: &Progress) -> Self {
        Self {
            file: global.nvml.clone(),
            root: global.root.clone(),
            known,
            progress: progress.clone(),
            loaded: None,
        }
    }

    /// Gives back every descriptor and mapping; the next look loads the library again.
    pub(crate) fn release(&mut self) {
        self.loaded = None;
    }

    /// Reads everything but the GPUs that other threads hang at.
    pub(super) fn look(&mut self, silent: &[Silent]) -> Result<Seen, Error> {
        let functions = pci::scan(&self.root)?;
        let host = self.host();
        let bound: Vec<(PciFunction, Option<String>)> = functions
            .into_iter()
            .map(|function| {
                let driver = pitcrew_host::pci::bound_driver(&host, function.address);
                (function, driver.value().cloned())
            })
            .collect();
        // Who is given to a virtual machine is none of the driver's GPUs.
        let ours = bound
            .iter()
            .filter(|(_, driver)| driver.as_deref().is_none_or(|driver| driver == "nvidia"))
            .map(|(function, _)| *function);
        let ours: Vec<PciFunction> = ours.collect();
        let looked = self.ask(ours, silent);
        if let Err(GpuError::DriverFailed(_)) = looked {
            // Whatever is wrong, the next look starts from the beginning, and holds nothing until then.
            self.loaded = None;
        }
        let (nvml, mut inventory) = looked?;
        let mut bus_only = Vec::new();
        for (function, driver) in bound {
            if inventory
                .gpus
                .iter()
                .any(|gpu| gpu.pci.address == function.address)
            {
                continue;
            }
            let reason = match driver.as_deref() {
                Some("nvidia") => "the driver does not list it".to_owned(),
                Some(other) => format!("it is bound to `{other}`, not to NVIDIA's driver"),
                None => "no driver is bound to it".to_owned(),
            };
            bus_only.push(function.address);
            inventory.gpus.push(Gpu {
                index: next_index(&inventory.gpus),
                pci: function,
                readings: GpuReadings::all_failed(&reason),
            });
        }
        Ok(Seen {
            source: Source::Driver { nvml, bus_only },
            inventory,
        })
    }

    /// Asks the driver, loaded anew where it was replaced.
    fn ask(
        &mut self,
        functions: Vec<PciFunction>,
        silent: &[Silent],
    ) -> Result<(PathBuf, pitcrew_core::Inventory), GpuError> {
        let (tell, logs) = match self.known.events() {
            Wanted::Tell(tell) => (Some(tell), false),
            Wanted::Log => (None, true),
            Wanted::Nothing => (None, false),
        };
        let progress = self.progress.clone();
        let loaded = self.load()?;
        loaded.nvml.set_pci(functions);
        loaded.nvml.set_silent(silent);
        let unheard: Vec<u32> = silent.iter().map(|silent| silent.index).collect();
        if loaded.unheard != unheard {
            // Who came back is listened to again.
            (loaded.events, loaded.listener) = (None, None);
            loaded.unheard = unheard;
        }
        if logs && loaded.events.is_none() {
            // A GPU without events has no XIDs to tell of.
            loaded.events = loaded.nvml.events().ok();
        }
        loaded.take_events();
        if let Some(tell) = tell
            && loaded.listener.as_ref().is_none_or(Listener::is_done)
        {
            // The old one is gone before the new one subscribes.
            loaded.listener = None;
            loaded.listener = loaded
                .nvml
                .events()
                .ok()
                .and_then(|events| Listener::start(events, tell, progress));
        }
        let inventory = loaded.nvml.inventory()?;
        let path = loaded.nvml.identity().map(|identity| identity.path.clone());
        Ok((path.unwrap_or_else(|| SONAME.into()), inventory))
    }

    fn load(&mut self) -> Result<&mut Loaded, GpuError> {
        let kernel_version = self.read("/sys/module/nvidia/version");
        let kernel_version = kernel_version.as_deref();
        // Let go of the old one before the new one is loaded: the loader would give the old one again.
        let kept = self
            .loaded
            .take()
            .filter(|loaded| loaded.nvml.is_current(kernel_version));
        let loaded = match kept {
            Some(loaded) => loaded,
            None => Loaded {
                events: None,
                listener: None,
                unheard: Vec::new(),
                nvml: Nvml::load(self.file.as_deref(), &self.directories())?
                    .with_places(self.known.places.clone())
                    .with_kernel_version(kernel_version)
                    .with_open_kernel_modules(self.open_kernel_modules()),
            },
        };
        Ok(self.loaded.insert(loaded))
    }

    fn directories(&self) -> Vec<PathBuf> {
        libraries::DIRECTORIES
            .iter()
            .map(|directory| self.root.join(directory.trim_start_matches('/')))
            .collect()
    }

    fn open_kernel_modules(&self) -> Reading<bool> {
        let text = self.read("/proc/driver/nvidia/version");
        let parsed = text.as_deref().and_then(driver::parse_version);
        parsed.map_or(Reading::NotSupported, |(_, open)| Reading::Value(open))
    }

    fn host(&self) -> HostRoots {
        HostRoots::new(Roots::under(&self.root))
    }

    fn read(&self, path: &str) -> Option<String> {
        let bytes = self.host().read(Path::new(path)).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// What is needed to sample a GPU, once a look has loaded the driver.
    fn nvml(&mut self) -> Result<&mut Nvml, GpuError> {
        self.load().map(|loaded| &mut loaded.nvml)
    }
}

impl Loaded {
    /// Has the log take what has happened since the last look; a lost GPU is seen by the look itself.
    fn take_events(&mut self) {
        let Some(events) = &mut self.events else { return };
        for _ in 0..MOST_EVENTS {
            match events.wait(Duration::ZERO) {
                Ok(Some(_)) | Err(GpuError::GpuLost(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

impl Sampling for Real {
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        self.nvml()?.fields(uuid, names)
    }

    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        self.nvml()?.nvlinks(uuid)
    }

    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        self.nvml()?.profiling(uuid, metrics)
    }
}

fn next_index(gpus: &[Gpu]) -> u32 {
    gpus.iter()
        .map(|gpu| gpu.index.saturating_add(1))
        .max()
        .unwrap_or(0)
}
