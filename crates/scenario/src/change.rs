//! What can happen to a node while it runs.

use pitcrew_core::Reading;
use pitcrew_core::gpu::{GpuProcess, GpuReadings, ProcessKind};
use pitcrew_core::mig::ParseProfileError;
use pitcrew_core::ports::{GpuError, GpuEvent, GpuEventKind};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, nearest};
use crate::state::{GpuState, Hang, Override, State};
use crate::value::{self, Value, known_field};
use crate::{calls, format};

/// Something that happens. `gpu` is the index in the driver's order.
///
/// It can be written as JSON or YAML, `{xid: {gpu: 3, xid: 79}}`, for a control socket or a script of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// A reading has this value from now on. It no longer fails.
    SetReading {
        /// Which GPU.
        gpu: u32,
        /// Name of the reading, as in the output.
        field: String,
        /// The value, in the unit of the reading.
        value: Value,
    },
    /// A reading fails from now on.
    Fail {
        /// Which GPU.
        gpu: u32,
        /// Name of the reading.
        field: String,
        /// Why.
        reason: String,
    },
    /// A reading is one that the card doesn't have.
    Unsupported {
        /// Which GPU.
        gpu: u32,
        /// Name of the reading.
        field: String,
    },
    /// A reading neither fails nor is unsupported any more.
    Restore {
        /// Which GPU.
        gpu: u32,
        /// Name of the reading.
        field: String,
    },
    /// The driver reports an XID; every subscriber is told.
    Xid {
        /// Which GPU.
        gpu: u32,
        /// The number.
        xid: u32,
        /// GPU instance that it happened in.
        gpu_instance: Option<u32>,
    },
    /// The GPU has this temperature, and its memory one that differs as it did when idle.
    Temperature {
        /// Which GPU.
        gpu: u32,
        /// Degrees Celsius.
        celsius: i32,
    },
    /// The GPU is busy: utilisation, power, temperatures, clocks and profiling figures follow.
    Load {
        /// Which GPU.
        gpu: u32,
        /// 0 to 100.
        percent: u32,
    },
    /// A process starts to hold the GPU.
    StartProcess {
        /// Which GPU.
        gpu: u32,
        /// Process id.
        pid: u32,
        /// GPU memory, in bytes; without it the driver doesn't tell.
        memory_bytes: Option<u64>,
        /// GPU instance that it runs in.
        gpu_instance: Option<u32>,
        /// Compute instance in it; the first one if not given.
        compute_instance: Option<u32>,
    },
    /// A process lets go of the GPU.
    EndProcess {
        /// Which GPU.
        gpu: u32,
        /// Process id.
        pid: u32,
    },
    /// The GPU no longer answers; the driver reports XID 79.
    FallOffBus {
        /// Which GPU.
        gpu: u32,
    },
    /// A lost GPU answers again, as after a reboot: without processes, XIDs or MIG instances.
    Return {
        /// Which GPU.
        gpu: u32,
    },
    /// MIG is turned on or off, at once or at the next reset, by the rules of [`pitcrew_core::ports::Mig::set_mode`].
    MigMode {
        /// Which GPU.
        gpu: u32,
        /// True to turn it on.
        enabled: bool,
    },
    /// A GPU instance is created, with no compute instance in it yet.
    CreateGpuInstance {
        /// Which GPU.
        gpu: u32,
        /// Name of the profile, e.g. `3g.40gb`.
        profile: String,
        /// First memory slice; without it the first place that is free.
        start: Option<u8>,
    },
    /// A compute instance is created in a GPU instance: a device is there.
    CreateComputeInstance {
        /// Which GPU.
        gpu: u32,
        /// The GPU instance.
        gpu_instance: u32,
        /// Compute slices.
        slices: u8,
        /// First compute slice in the GPU instance; without it the first that is free.
        start: Option<u8>,
    },
    /// A compute instance is destroyed.
    DestroyComputeInstance {
        /// Which GPU.
        gpu: u32,
        /// The GPU instance.
        gpu_instance: u32,
        /// The compute instance in it.
        compute_instance: u32,
    },
    /// A GPU instance is destroyed, in which no compute instance may be left.
    DestroyGpuInstance {
        /// Which GPU.
        gpu: u32,
        /// The GPU instance.
        gpu_instance: u32,
    },
    /// A GPU is reset, as by [`crate::Machine::reset`].
    Reset {
        /// Which GPU.
        gpu: u32,
    },
    /// Calls hang until [`Change::Release`].
    Hang {
        /// NVML's name of the call, or its beginning and `*`.
        call: String,
        /// On this GPU only.
        gpu: Option<u32>,
    },
    /// No call hangs any more.
    Release,
    /// The driver no longer answers at all.
    BreakDriver {
        /// Why.
        reason: String,
    },
    /// The driver is unloaded: no library, no device nodes, only PCI functions.
    UnloadDriver,
    /// The driver is loaded (again), in this version.
    ReplaceDriver {
        /// Version of the kernel module and of NVML.
        version: String,
    },
}

/// A change that can't happen to this node.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such GPU.
    #[error("there is no GPU {gpu}: the node has {count}, counted from 0")]
    NoSuchGpu {
        /// The index given.
        gpu: u32,
        /// How many there are.
        count: usize,
    },
    /// A name or value doesn't fit.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The GPU or its driver doesn't do it.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The state of the GPU doesn't allow it.
    #[error("GPU {gpu}: {reason}")]
    Refused {
        /// The index given.
        gpu: u32,
        /// Why.
        reason: String,
    },
}

impl Change {
    pub(crate) fn apply(&self, state: &mut State) -> Result<(), ChangeError> {
        match self {
            Self::SetReading { gpu, field, value } => find(state, *gpu)?.set_reading(field, value)?,
            Self::Fail { gpu, field, reason } => {
                let field = known_field(field)?;
                find(state, *gpu)?
                    .overrides
                    .insert(field, Override::Failed(reason.clone()));
            }
            Self::Unsupported { gpu, field } => {
                let field = known_field(field)?;
                find(state, *gpu)?.overrides.insert(field, Override::NotSupported);
            }
            Self::Restore { gpu, field } => {
                let field = known_field(field)?;
                find(state, *gpu)?.overrides.remove(field);
            }
            Self::Xid {
                gpu,
                xid,
                gpu_instance,
            } => report_xid(state, *gpu, *xid, *gpu_instance)?,
            Self::Temperature { gpu, celsius } => find(state, *gpu)?.set_temperature(*celsius),
            Self::Load { gpu, percent } => {
                if *percent > 100 {
                    let (field, expected) = ("percent".to_owned(), "a whole number from 0 to 100".to_owned());
                    return Err(Problem::BadValue {
                        field,
                        expected,
                        found: format!("`{percent}`"),
                    }
                    .into());
                }
                find(state, *gpu)?.set_load(*percent);
            }
            Self::StartProcess {
                gpu,
                pid,
                memory_bytes,
                gpu_instance,
                compute_instance,
            } => {
                let process = format::Process {
                    pid: *pid,
                    kind: format::Kind::Compute,
                    memory_bytes: *memory_bytes,
                    gpu_instance: *gpu_instance,
                    compute_instance: *compute_instance,
                };
                let refused = |reason| ChangeError::Refused { gpu: *gpu, reason };
                find(state, *gpu)?.start(&process).map_err(refused)?;
            }
            Self::EndProcess { gpu, pid } => {
                let refused = |reason| ChangeError::Refused { gpu: *gpu, reason };
                find(state, *gpu)?.end(*pid).map_err(refused)?;
            }
            Self::FallOffBus { gpu } => {
                report_xid(state, *gpu, 79, None)?;
                find(state, *gpu)?.lost = true;
            }
            Self::Return { gpu } => {
                let gpu = find(state, *gpu)?;
                gpu.lost = false;
                gpu.base.processes = Reading::Value(Vec::new());
                // Nobody holds it any more, so the reset can't be refused.
                let _done = gpu.reset();
            }
            Self::MigMode { .. }
            | Self::CreateGpuInstance { .. }
            | Self::CreateComputeInstance { .. }
            | Self::DestroyComputeInstance { .. }
            | Self::DestroyGpuInstance { .. }
            | Self::Reset { .. } => self.cut(state)?,
            Self::Hang { call, gpu } => {
                known_call(call)?;
                if let Some(gpu) = gpu {
                    find(state, *gpu)?;
                }
                state.hangs.push(Hang {
                    call: call.clone(),
                    gpu: *gpu,
                });
            }
            Self::Release => state.hangs.clear(),
            Self::BreakDriver { reason } => state.driver.fault = Some(reason.clone()),
            Self::UnloadDriver => {
                state.driver.missing = true;
            }
            Self::ReplaceDriver { version } => {
                for gpu in &mut state.gpus {
                    // The firmware comes with the driver; one that differs was the scenario's will.
                    if gpu.base.gsp_firmware.value() == Some(&state.driver.version) {
                        gpu.base.gsp_firmware = Reading::Value(version.clone());
                    }
                }
                state.driver.version.clone_from(version);
                state.driver.missing = false;
                state.driver.fault = None;
            }
        }
        Ok(())
    }
}

impl Change {
    /// The changes of how a GPU is cut.
    fn cut(&self, state: &mut State) -> Result<(), ChangeError> {
        match self {
            Self::MigMode { gpu, enabled } => answering(state, *gpu)?.set_mig_mode(*enabled)?,
            Self::CreateGpuInstance { gpu, profile, start } => {
                let profile = profile
                    .parse()
                    .map_err(|error: ParseProfileError| Problem::Mig(error.to_string()))?;
                answering(state, *gpu)?.create_gpu_instance(&profile, *start)?;
            }
            Self::CreateComputeInstance {
                gpu,
                gpu_instance,
                slices,
                start,
            } => {
                answering(state, *gpu)?;
                let (node, mut created) = (state.node.clone(), state.created);
                let found = find(state, *gpu)?;
                found.place_compute_instance(*gpu_instance, *slices, *start, &node, &mut created)?;
                state.created = created;
            }
            Self::DestroyComputeInstance {
                gpu,
                gpu_instance,
                compute_instance,
            } => answering(state, *gpu)?.destroy_compute_instance(*gpu_instance, *compute_instance)?,
            Self::DestroyGpuInstance { gpu, gpu_instance } => {
                answering(state, *gpu)?.destroy(*gpu_instance)?;
            }
            Self::Reset { gpu } => answering(state, *gpu)?.reset()?,
            _ => {}
        }
        Ok(())
    }
}

/// A GPU of which something is asked, which it can do only while it answers.
fn answering(state: &mut State, gpu: u32) -> Result<&mut GpuState, ChangeError> {
    let found = find(state, gpu)?;
    if found.lost {
        return Err(GpuError::GpuLost(found.uuid.clone()).into());
    }
    Ok(found)
}

/// Refuses a pattern that means no call: it would hang nothing, silently.
pub(crate) fn known_call(pattern: &str) -> Result<(), Problem> {
    if calls::all().any(|call| calls::matches(pattern, call)) {
        return Ok(());
    }
    let near = nearest(pattern.trim_end_matches('*'), calls::all());
    Err(Problem::UnknownCall {
        call: pattern.to_owned(),
        near,
    })
}

fn find(state: &mut State, gpu: u32) -> Result<&mut GpuState, ChangeError> {
    let count = state.gpus.len();
    let found = usize::try_from(gpu).ok().and_then(|at| state.gpus.get_mut(at));
    found.ok_or(ChangeError::NoSuchGpu { gpu, count })
}

fn report_xid(state: &mut State, gpu: u32, xid: u32, gpu_instance: Option<u32>) -> Result<(), ChangeError> {
    let found = find(state, gpu)?;
    if let Reading::Value(xids) = &mut found.base.xids {
        xids.push(xid);
    }
    let event = GpuEvent {
        uuid: found.uuid.clone(),
        kind: GpuEventKind::Xid(xid),
        gpu_instance,
        compute_instance: gpu_instance.map(|_| 0),
    };
    state.tell(&event);
    Ok(())
}

/// `part` of `whole` as `percent` says, rounded down.
fn share(whole: u32, percent: u32) -> u32 {
    u32::try_from(u64::from(whole) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

impl GpuState {
    fn set_reading(&mut self, field: &str, value: &Value) -> Result<(), Problem> {
        let field = known_field(field)?;
        if matches!(field, "uuid" | "minor") {
            // Both name things elsewhere; a GPU doesn't change them while it runs.
            let how = "a GPU keeps it for as long as it runs";
            return Err(Problem::NotSettable {
                field: field.to_owned(),
                how,
            });
        }
        value::set(&mut self.base, field, value)?;
        self.overrides.remove(field);
        Ok(())
    }

    fn end(&mut self, pid: u32) -> Result<(), String> {
        let Reading::Value(processes) = &mut self.base.processes else {
            return Err("its processes can't be listed".to_owned());
        };
        let before = processes.len();
        processes.retain(|process| process.pid != pid);
        if processes.len() == before {
            Err(format!("no process {pid} holds it"))
        } else {
            Ok(())
        }
    }

    /// Starts a process, or says why it can't run there.
    pub(crate) fn start(&mut self, process: &format::Process) -> Result<(), String> {
        let exists = |id| self.instances.iter().any(|instance| instance.id == id);
        match process.gpu_instance {
            Some(id) if !exists(id) => {
                return Err(format!(
                    "there is no GPU instance {id} for process {}",
                    process.pid
                ));
            }
            // CUDA finds no device on a GPU in MIG mode but its instances.
            None if self.mig_on() && process.kind != format::Kind::Graphics => {
                return Err(format!(
                    "MIG is on: process {} needs a `gpu_instance`",
                    process.pid
                ));
            }
            Some(_) | None => {}
        }
        let compute_instance = self.compute_instance_of(process)?;
        let process = GpuProcess {
            pid: process.pid,
            kind: match process.kind {
                format::Kind::Compute => ProcessKind::Compute,
                format::Kind::Graphics => ProcessKind::Graphics,
                format::Kind::Mps => ProcessKind::Mps,
            },
            memory_bytes: process.memory_bytes.map_or(Reading::NotSupported, Reading::Value),
            gpu_instance: process.gpu_instance,
            compute_instance,
        };
        let Reading::Value(processes) = &mut self.base.processes else {
            return Err("its processes can't be listed".to_owned());
        };
        if processes.iter().any(|other| {
            (other.pid, other.gpu_instance, other.compute_instance)
                == (process.pid, process.gpu_instance, process.compute_instance)
        }) {
            return Err(format!("process {} holds it already", process.pid));
        }
        processes.push(process);
        Ok(())
    }

    /// The compute instance that a process runs in: the one asked for, which must be there, or the first one.
    fn compute_instance_of(&self, process: &format::Process) -> Result<Option<u32>, String> {
        let instance = process
            .gpu_instance
            .and_then(|id| self.instances.iter().find(|instance| instance.id == id));
        let compute = instance.map_or(&[][..], |instance| &instance.compute);
        match process.compute_instance {
            Some(id) if !compute.iter().any(|compute| compute.id == id) => Err(format!(
                "there is no compute instance {id} for process {}",
                process.pid
            )),
            Some(id) => Ok(Some(id)),
            None => Ok(compute.first().map(|compute| compute.id)),
        }
    }

    fn set_temperature(&mut self, celsius: i32) {
        self.base.temperature_c = Reading::Value(celsius);
        if let Some(idle) = self.idle.memory_temperature_c {
            let memory = idle
                .saturating_sub(self.idle.temperature_c)
                .saturating_add(celsius);
            self.base.memory_temperature_c = Reading::Value(memory);
        }
    }

    /// Straight lines from idle to the limit: plausible, the same every time, and easy to expect in a test.
    fn set_load(&mut self, percent: u32) {
        const HOT_C: i32 = 78;
        const IDLE: u64 = 0x1;
        const POWER_CAP: u64 = 0x4;
        self.load = Some(percent);
        let GpuReadings {
            power_limit_mw,
            clock_sm_max_mhz,
            ..
        } = &self.base;
        let limit = power_limit_mw.value().copied().unwrap_or(self.idle.power_mw);
        let fastest = clock_sm_max_mhz
            .value()
            .copied()
            .unwrap_or(self.idle.clock_sm_mhz);
        let heat = HOT_C.saturating_sub(self.idle.temperature_c).max(0);
        let warmer = i32::try_from(percent).map_or(0, |percent| heat * percent / 100);
        self.set_temperature(self.idle.temperature_c + warmer);
        let power = self.idle.power_mw + share(limit.saturating_sub(self.idle.power_mw), percent);
        // At the limit the clocks give way: an H100 runs long tensor work at about three quarters of its highest.
        let capped = percent >= 95;
        let (clock, reasons) = match percent {
            0 => (self.idle.clock_sm_mhz, IDLE),
            _ if capped => (share(fastest, 75), POWER_CAP),
            _ => (fastest, 0),
        };
        let readings = &mut self.base;
        readings.power_mw = Reading::Value(power);
        readings.power_instant_mw = Reading::Value(power);
        readings.utilization_gpu_percent = Reading::Value(percent);
        readings.utilization_memory_percent = Reading::Value(percent / 2);
        readings.clock_sm_mhz = Reading::Value(clock);
        readings.clocks_event_reasons = Reading::Value(reasons);
        readings.performance_state = Reading::Value(if percent == 0 {
            self.idle.performance_state
        } else {
            0
        });
    }
}
