//! The imaginary node of this process, and one call of a client on it.

use std::ffi::c_uint;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings::nvmlDevice_st;
use pitcrew_core::Reading;
use pitcrew_core::gpu::MigDevice;
use pitcrew_core::inventory::DriverReadings;
use pitcrew_core::ports::GpuError;
use pitcrew_scenario::{Change, ChangeError, GpuFacts, Machine, Scenario, calls};

use crate::abi::{Answer, Out, ReadingExt as _, code};
use crate::changes::{Changes, Refused};
use crate::handles::{Handles, Object};

/// Scenario of a client that names none.
const DEFAULT_SCENARIO: &str = "rtx3060";
/// How often a call that waits or hangs looks for changes.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The node: made by the first `nvmlInit` that can, kept until the process ends, as handles are.
pub(crate) struct World {
    pub(crate) machine: Machine,
    changes: Mutex<Option<Changes>>,
    handles: Mutex<Handles>,
}

/// What the process holds: the node, and how many times it was initialised.
struct Process {
    world: Option<Arc<World>>,
    initialised: u32,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    world: None,
    initialised: 0,
});

/// The lock, also after a panic: what it guards is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A remark for who runs the client; there is no other way to tell.
pub(crate) fn say(what: &str) {
    // Where standard error is closed nobody listens.
    let _unheard = writeln!(std::io::stderr(), "pitcrew's imaginary libnvidia-ml: {what}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a library has no command line; `docs/scenarios.md` names its variables"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl World {
    /// The node that the environment names, or what is wrong with it.
    fn from_environment() -> Result<Self, String> {
        let name = variable("PITCREW_SCENARIO").unwrap_or_else(|| DEFAULT_SCENARIO.to_owned());
        let is_file = name.contains('/') || Path::new(&name).extension().is_some();
        let scenario = if is_file {
            Scenario::load(Path::new(&name))
        } else {
            Scenario::builtin(&name)
        };
        let scenario = scenario.map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            format!("PITCREW_SCENARIO: {error}{cause}")
        })?;
        let latency = variable("PITCREW_SCENARIO_LATENCY").is_some_and(|value| value == "1");
        let changes = variable("PITCREW_SCENARIO_CHANGES")
            .map(PathBuf::from)
            .map(Changes::new);
        Ok(Self {
            machine: Machine::new(scenario).with_latency(latency),
            changes: Mutex::new(changes),
            handles: Mutex::default(),
        })
    }

    fn catch_up(&self) {
        if let Some(changes) = lock(&self.changes).as_mut() {
            changes.catch_up(&self.machine);
        }
    }

    /// Blocks while the scenario lets this call hang.
    fn wait_while_hanging(&self, call: &str, gpu: Option<u32>) {
        let same = calls::same_as(call);
        let one = |call: &str| match gpu {
            Some(_) => self.machine.hangs(call, gpu),
            // `nvmlDevice*` of one GPU is not about counting them.
            None => self.machine.hangs_at_all(call),
        };
        let hangs = || one(call) || same.is_some_and(one);
        while hangs() {
            std::thread::sleep(LOOK_AGAIN);
            self.catch_up();
        }
    }
}

/// NVML's code for a refusal of the node.
fn code_of(error: &GpuError) -> c_uint {
    match error {
        GpuError::NoDriver(_) => code::DRIVER_NOT_LOADED,
        GpuError::DriverFailed(reason) => Reading::<()>::Failed(reason.clone())
            .answer()
            .err()
            .unwrap_or(code::UNKNOWN),
        GpuError::NoSuchGpu(_) => code::NOT_FOUND,
        GpuError::GpuLost(_) => code::GPU_IS_LOST,
        GpuError::DriverSilent(_) | GpuError::Silent { .. } => code::TIMEOUT,
        GpuError::NotSupported { .. } => code::NOT_SUPPORTED,
        GpuError::InUse { .. } => code::IN_USE,
        GpuError::Refused { .. } => code::INSUFFICIENT_RESOURCES,
    }
}

/// `nvmlInit` in all its versions.
pub(crate) fn initialise(name: &'static str) -> Answer {
    let world = {
        let mut process = lock(&PROCESS);
        if let Some(world) = &process.world {
            Arc::clone(world)
        } else {
            let world = Arc::new(World::from_environment().map_err(|problem| {
                say(&problem);
                code::UNKNOWN
            })?);
            process.world = Some(Arc::clone(&world));
            world
        }
    };
    world.catch_up();
    world.wait_while_hanging(name, None);
    world.machine.driver().map_err(|error| code_of(&error))?;
    lock(&PROCESS).initialised += 1;
    Ok(())
}

/// `nvmlShutdown`.
pub(crate) fn shut_down() -> Answer {
    let mut process = lock(&PROCESS);
    process.initialised = process.initialised.checked_sub(1).ok_or(code::UNINITIALIZED)?;
    Ok(())
}

/// A MIG device and the GPU that it is on.
pub(crate) struct Slice {
    pub(crate) gpu: GpuFacts,
    pub(crate) device: MigDevice,
    /// Its position among the GPU's devices.
    pub(crate) index: u32,
}

/// What a device handle stands for.
pub(crate) enum Device {
    Gpu(Box<GpuFacts>),
    Mig(Box<Slice>),
}

/// One call of a client.
pub(crate) struct Call {
    world: Arc<World>,
    name: &'static str,
}

impl Call {
    /// Finds the node and applies what has changed.
    pub(crate) fn begin(name: &'static str) -> Answer<Self> {
        let world = {
            let process = lock(&PROCESS);
            let world = process.world.as_ref().filter(|_| process.initialised > 0);
            Arc::clone(world.ok_or(code::UNINITIALIZED)?)
        };
        world.catch_up();
        Ok(Self { world, name })
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.world.machine
    }

    pub(crate) fn handles(&self) -> MutexGuard<'_, Handles> {
        lock(&self.world.handles)
    }

    /// Looks for changes again, in a call that waits.
    pub(crate) fn catch_up(&self) {
        self.world.catch_up();
    }

    /// Asks the driver as a whole.
    pub(crate) fn driver(&self) -> Answer<DriverReadings> {
        self.world.wait_while_hanging(self.name, None);
        self.machine().driver().map_err(|error| code_of(&error))
    }

    /// Asks one GPU by its position; it must answer.
    pub(crate) fn gpu_at(&self, index: u32) -> Answer<GpuFacts> {
        self.world.wait_while_hanging(self.name, Some(index));
        let same = calls::same_as(self.name).unwrap_or(self.name);
        let time = self.machine().takes(same, index);
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        self.machine().driver().map_err(|error| code_of(&error))?;
        let gpu = self.machine().gpu(index).ok_or(code::INVALID_ARGUMENT)?;
        if gpu.lost { Err(code::GPU_IS_LOST) } else { Ok(gpu) }
    }

    /// What the handle stands for, which must be a device that exists and answers.
    pub(crate) fn device(&self, handle: &Out<nvmlDevice_st>) -> Answer<Device> {
        let object = self.handles().object(handle.address())?;
        match object {
            Object::Gpu(index) => Ok(Device::Gpu(Box::new(self.gpu_at(index)?))),
            Object::Mig { gpu, uuid } => {
                let gpu = self.gpu_at(gpu)?;
                let devices = gpu.readings.mig_devices.answer()?;
                let found = devices
                    .into_iter()
                    .zip(0..)
                    .find(|(device, _)| device.uuid == uuid);
                let (device, index) = found.ok_or(code::NOT_FOUND)?;
                Ok(Device::Mig(Box::new(Slice { gpu, device, index })))
            }
            Object::GpuInstance { .. } | Object::ComputeInstance { .. } => Err(code::INVALID_ARGUMENT),
        }
    }

    /// A whole GPU: what most calls need, and refuse of a MIG device.
    pub(crate) fn gpu(&self, handle: &Out<nvmlDevice_st>) -> Answer<GpuFacts> {
        match self.device(handle)? {
            Device::Gpu(gpu) => Ok(*gpu),
            Device::Mig(_) => Err(code::NOT_SUPPORTED),
        }
    }

    /// The GPU of a handle, be it lost or not, or only a slice of it: for what is known without asking it.
    pub(crate) fn known(&self, handle: &Out<nvmlDevice_st>) -> Answer<GpuFacts> {
        let object = self.handles().object(handle.address())?;
        let (Object::Gpu(index) | Object::Mig { gpu: index, .. }) = object else {
            return Err(code::INVALID_ARGUMENT);
        };
        self.world.wait_while_hanging(self.name, Some(index));
        self.machine().gpu(index).ok_or(code::INVALID_ARGUMENT)
    }

    /// A number by NVML's name, of a GPU that answers.
    pub(crate) fn number(&self, gpu: &GpuFacts, name: &str) -> Answer<u64> {
        self.machine().number(gpu.index, name).answer()
    }

    /// The handle of a GPU, as a value to give out.
    pub(crate) fn gpu_handle(&self, index: u32) -> *mut nvmlDevice_st {
        self.handles().of(Object::Gpu(index))
    }

    /// Changes the node, here and for all who share the file of changes.
    pub(crate) fn change(&self, change: &Change) -> Answer {
        let result = match lock(&self.world.changes).as_mut() {
            Some(changes) => changes.make(change, self.machine()),
            None => self.machine().change(change).map_err(Refused::Change),
        };
        result.map_err(|refused| match refused {
            Refused::Change(ChangeError::Gpu(error)) => code_of(&error),
            Refused::Change(ChangeError::NoSuchGpu { .. } | ChangeError::Problem(_)) => {
                code::INVALID_ARGUMENT
            }
            Refused::Change(ChangeError::Refused { .. }) => code::INSUFFICIENT_RESOURCES,
            Refused::File(error) => {
                say(&format!("changes: others can't be told: {error}"));
                code::UNKNOWN
            }
        })
    }
}

/// A number that must fit the 32 bits that NVML has for it.
pub(crate) fn small(number: u64) -> Answer<c_uint> {
    c_uint::try_from(number).map_err(|_| code::UNKNOWN)
}
