//! MIG as a state machine: modes, instances, and who holds them.

use pitcrew_core::Reading;
use pitcrew_core::catalog::Architecture;
use pitcrew_core::gpu::{GpuReadings, MigDevice, MigMode, RemappedRows};
use pitcrew_core::mig::{Geometry, GeometryProfile, Layout, Placement, Profile};
use pitcrew_core::ports::{GpuError, Mig};

use crate::calls;
use crate::hostfs::GPU_INSTANCES;
use crate::machine::Machine;
use crate::state::{GpuState, fresh_mig_uuid};

impl Mig for Machine {
    fn set_mode(&mut self, uuid: &str, enabled: bool) -> Result<(), GpuError> {
        self.change_gpu(uuid, &[calls::MIG_MODE], |gpu, _| gpu.set_mig_mode(enabled))
    }

    fn profiles(&mut self, uuid: &str) -> Result<Vec<GeometryProfile>, GpuError> {
        self.on_gpu(uuid, &[calls::MIG_PROFILES], |gpu, _| {
            Ok(gpu.cut()?.profiles.clone())
        })
    }

    fn create(
        &mut self,
        uuid: &str,
        profile: &Profile,
        placement: Option<Placement>,
    ) -> Result<MigDevice, GpuError> {
        self.change_gpu(uuid, &[calls::MIG_CREATE], |gpu, (node, created)| {
            if !gpu.mig_on() {
                return Err(gpu.refused("MIG is off".to_owned()));
            }
            if let Some(process) = gpu.whole_gpu_holder() {
                return Err(gpu.in_use(process));
            }
            // A refused request must not use up a UUID, or a failed try would change all that follow.
            let mut next = *created;
            let device = gpu.place(profile, placement, &fresh_mig_uuid(node, &mut next))?;
            *created = next;
            Ok(device)
        })
    }

    fn destroy(&mut self, uuid: &str, gpu_instance: u32) -> Result<(), GpuError> {
        self.change_gpu(uuid, &[calls::MIG_DESTROY], |gpu, _| gpu.destroy(gpu_instance))
    }
}

impl GpuState {
    /// What it can be cut into.
    fn cut(&self) -> Result<&Geometry, GpuError> {
        self.geometry.as_ref().ok_or_else(|| GpuError::NotSupported {
            gpu: self.uuid.clone(),
            what: "MIG".to_owned(),
        })
    }

    pub(crate) fn refused(&self, reason: String) -> GpuError {
        GpuError::Refused {
            gpu: self.uuid.clone(),
            reason,
        }
    }

    fn in_use(&self, pid: u32) -> GpuError {
        GpuError::InUse {
            gpu: self.uuid.clone(),
            holder: format!("process {pid} holds it"),
        }
    }

    /// A process that holds it, in this GPU instance if given.
    fn holder(&self, gpu_instance: Option<u32>) -> Option<u32> {
        let mut processes = self.base.processes.value()?.iter();
        processes
            .find(|process| gpu_instance.is_none() || process.gpu_instance == gpu_instance)
            .map(|process| process.pid)
    }

    /// A process that holds the GPU outside of any instance.
    fn whole_gpu_holder(&self) -> Option<u32> {
        self.base
            .processes
            .value()?
            .iter()
            .find(|process| process.gpu_instance.is_none())
            .map(|process| process.pid)
    }

    fn set_mig_mode(&mut self, enabled: bool) -> Result<(), GpuError> {
        self.cut()?;
        let Some(mode) = self.base.mig_mode.value().copied() else {
            return Err(GpuError::NotSupported {
                gpu: self.uuid.clone(),
                what: "MIG".to_owned(),
            });
        };
        if !self.instances().is_empty() && !enabled {
            let holder = format!(
                "{} GPU instances exist; destroy them first",
                self.instances().len()
            );
            return Err(GpuError::InUse {
                gpu: self.uuid.clone(),
                holder,
            });
        }
        let mode = if self.needs_reset_for_mig() || mode.current == enabled {
            MigMode {
                current: mode.current,
                pending: enabled,
            }
        } else {
            if let Some(pid) = self.holder(None) {
                return Err(self.in_use(pid));
            }
            MigMode {
                current: enabled,
                pending: enabled,
            }
        };
        self.base.mig_mode = Reading::Value(mode);
        Ok(())
    }

    /// Ampere changes its mode at a reset, Hopper and later at once.
    fn needs_reset_for_mig(&self) -> bool {
        self.card.architecture == Architecture::Ampere
    }

    /// What stands on the GPU now, for core's rules.
    fn layout(&self) -> Layout {
        self.instances()
            .iter()
            .map(|device| (device.profile.clone(), device.placement))
            .collect()
    }

    /// Creates an instance without asking whether MIG is on: also how a scenario's devices come to be.
    pub(crate) fn place(
        &mut self,
        profile: &Profile,
        placement: Option<Placement>,
        uuid: &str,
    ) -> Result<MigDevice, GpuError> {
        let geometry = self.cut()?;
        let (known, placement) = find_place(geometry, &self.layout(), profile, placement)
            .map_err(|reason| self.refused(reason))?;
        let taken = |id: &u32| self.instances().iter().any(|device| device.gpu_instance == *id);
        let device = MigDevice {
            uuid: uuid.to_owned(),
            // No card has as many places as there are numbers.
            gpu_instance: (0..GPU_INSTANCES).find(|id| !taken(id)).unwrap_or(GPU_INSTANCES),
            compute_instance: 0,
            profile: profile.clone(),
            placement,
            memory_total_bytes: known.memory_mib.map_or(Reading::NotSupported, |mib| {
                Reading::Value(u64::from(mib) * 1024 * 1024)
            }),
            multiprocessors: known
                .multiprocessors
                .map_or(Reading::NotSupported, Reading::Value),
        };
        let mut devices = self.instances().to_vec();
        devices.push(device.clone());
        devices.sort_by_key(|device| device.gpu_instance);
        self.base.mig_devices = Reading::Value(devices);
        Ok(device)
    }

    fn destroy(&mut self, gpu_instance: u32) -> Result<(), GpuError> {
        self.cut()?;
        if !self
            .instances()
            .iter()
            .any(|device| device.gpu_instance == gpu_instance)
        {
            return Err(self.refused(format!("there is no GPU instance {gpu_instance}")));
        }
        if let Some(pid) = self.holder(Some(gpu_instance)) {
            return Err(self.in_use(pid));
        }
        let mut devices = self.instances().to_vec();
        devices.retain(|device| device.gpu_instance != gpu_instance);
        self.base.mig_devices = Reading::Value(devices);
        Ok(())
    }

    /// `nvidia-smi --gpu-reset`: what waits for a reset happens, and the errors of the past are forgotten.
    pub(crate) fn reset(&mut self) -> Result<(), GpuError> {
        if let Some(pid) = self.holder(None) {
            return Err(self.in_use(pid));
        }
        let GpuReadings {
            mig_mode,
            mig_devices,
            xids,
            remapped_rows,
            ecc_corrected,
            ecc_uncorrected,
            ..
        } = &mut self.base;
        if let Reading::Value(mode) = mig_mode {
            mode.current = mode.pending;
            // Instances live in the GPU and don't outlive a reset.
            *mig_devices = Reading::Value(Vec::new());
        }
        *xids = Reading::Value(Vec::new());
        if let Reading::Value(rows) = remapped_rows {
            *rows = RemappedRows {
                pending: false,
                ..*rows
            };
        }
        for count in [ecc_corrected, ecc_uncorrected] {
            if let Reading::Value(count) = count {
                *count = 0;
            }
        }
        Ok(())
    }
}

/// The profile as the GPU knows it, and the place asked for or else the first that is free.
pub(crate) fn find_place<'a>(
    geometry: &'a Geometry,
    layout: &Layout,
    profile: &Profile,
    placement: Option<Placement>,
) -> Result<(&'a GeometryProfile, Placement), String> {
    let known = geometry
        .profiles
        .iter()
        .find(|known| known.profile == *profile)
        .ok_or_else(|| {
            let names: Vec<_> = geometry
                .profiles
                .iter()
                .map(|known| known.profile.to_string())
                .collect();
            format!("it has no profile `{profile}`; it has {}", names.join(", "))
        })?;
    if let Some(placement) = placement {
        return layout
            .can_place(geometry, profile, placement)
            .map(|()| (known, placement))
            .map_err(|error| error.to_string());
    }
    let mut last = format!("`{profile}` has no placement");
    for &placement in &known.placements {
        match layout.can_place(geometry, profile, placement) {
            Ok(()) => return Ok((known, placement)),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("no place is free for `{profile}`: {last}"))
}
