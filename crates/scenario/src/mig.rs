//! MIG as a state machine: modes, instances, and who holds them.
//!
//! The driver makes a device in two steps, a GPU instance and then compute instances in it. Our own code takes both at
//! once ([`Mig::create`]) or one after the other; the mock of NVIDIA's library takes single steps ([`Change`]).

use pitcrew_core::Reading;
use pitcrew_core::catalog::{Architecture, Card};
use pitcrew_core::gpu::{GpuReadings, MigDevice, MigMode, RecoveryAction, RemappedRows};
use pitcrew_core::mig::{Geometry, GeometryProfile, Layout, Placement, Profile, engines};
use pitcrew_core::ports::{GpuError, Mig};

use crate::calls;
#[cfg(doc)]
use crate::change::Change;
use crate::hostfs::{COMPUTE_INSTANCES, GPU_INSTANCES};
use crate::machine::Machine;
use crate::state::{GpuState, fresh_mig_uuid};

/// A GPU instance: memory and engines of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInstance {
    /// Its number on the GPU.
    pub id: u32,
    /// Its profile.
    pub profile: Profile,
    /// Memory slices that it takes.
    pub placement: Placement,
    /// Compute instances in it, by number. Without any there is no device that CUDA could use.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance: some of a GPU instance's compute slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeInstance {
    /// Its number in the GPU instance.
    pub id: u32,
    /// `MIG-` and the UUID of the device that it makes.
    pub uuid: String,
    /// First compute slice, counted from the GPU instance's own first.
    pub start: u8,
    /// Compute slices.
    pub slices: u8,
}

impl GpuInstance {
    /// The device that one of its compute instances makes.
    fn device(&self, compute: &ComputeInstance, card: &Card, geometry: Option<&Geometry>) -> MigDevice {
        let known = geometry.and_then(|geometry| geometry.profile(&self.profile));
        let multiprocessors = known.and_then(|known| known.multiprocessors);
        MigDevice {
            uuid: compute.uuid.clone(),
            gpu_instance: self.id,
            compute_instance: compute.id,
            profile: Profile {
                compute_slices: compute.slices,
                ..self.profile.clone()
            },
            placement: self.placement,
            memory_total_bytes: known
                .and_then(|known| known.memory_mib)
                .map_or(Reading::NotSupported, |mib| Reading::Value(u64::from(mib) << 20)),
            // Of an instance alone nobody knows who holds it.
            memory_used_bytes: Reading::NotSupported,
            multiprocessors: multiprocessors.map_or(Reading::NotSupported, |all| {
                let slices = u32::from(self.profile.gpu_slices).max(1);
                Reading::Value(all * u32::from(compute.slices) / slices)
            }),
            engines: geometry
                .zip(known)
                .map_or(Reading::NotSupported, |(geometry, known)| {
                    Reading::Value(engines(card, geometry, known))
                }),
        }
    }

    /// Where a compute instance of this size can start: at multiples of its size, as far as there are slices. Nowhere
    /// if the profile has no part of this size.
    pub fn starts(&self, slices: u8) -> Vec<u8> {
        let is_part = self.profile.parts().any(|part| part.compute_slices == slices);
        match self.profile.gpu_slices.checked_sub(slices) {
            Some(last) if slices > 0 && is_part => (0..=last).step_by(slices.into()).collect(),
            _ => Vec::new(),
        }
    }

    /// Without its compute instances.
    fn outline(&self) -> pitcrew_core::gpu::GpuInstance {
        pitcrew_core::gpu::GpuInstance {
            id: self.id,
            profile: self.profile.clone(),
            placement: self.placement,
        }
    }

    /// The first start that is free, or whether the one asked for is.
    fn free_start(&self, slices: u8, start: Option<u8>) -> Option<u8> {
        let overlaps = |start: u8| {
            self.compute
                .iter()
                .any(|other| start < other.start + other.slices && other.start < start + slices)
        };
        self.starts(slices)
            .into_iter()
            .find(|&at| start.is_none_or(|wanted| wanted == at) && !overlaps(at))
    }
}

impl Mig for Machine {
    fn set_mode(&mut self, uuid: &str, enabled: bool) -> Result<(), GpuError> {
        self.change_gpu(uuid, &[calls::MIG_MODE], |gpu, _| gpu.set_mig_mode(enabled))
    }

    fn profiles(&mut self, uuid: &str) -> Result<Vec<GeometryProfile>, GpuError> {
        self.on_gpu(uuid, &[calls::MIG_PROFILES], |gpu, _| {
            Ok(gpu.cut()?.profiles.clone())
        })
    }

    fn gpu_instances(&mut self, uuid: &str) -> Result<Vec<pitcrew_core::gpu::GpuInstance>, GpuError> {
        self.on_gpu(uuid, &[calls::MIG_INSTANCES], |gpu, _| {
            gpu.cut()?;
            Ok(gpu.instances.iter().map(GpuInstance::outline).collect())
        })
    }

    fn create_gpu_instance(
        &mut self,
        uuid: &str,
        profile: &Profile,
        placement: Option<Placement>,
    ) -> Result<pitcrew_core::gpu::GpuInstance, GpuError> {
        self.change_gpu(uuid, &[calls::MIG_CREATE], |gpu, _| {
            gpu.may_be_cut()?;
            let id = gpu.place_gpu_instance(profile, placement)?;
            Ok(gpu.gpu_instance(id)?.outline())
        })
    }

    fn create_compute_instance(
        &mut self,
        uuid: &str,
        gpu_instance: u32,
        profile: &Profile,
    ) -> Result<MigDevice, GpuError> {
        self.change_gpu(uuid, &[calls::MIG_CREATE_COMPUTE], |gpu, (node, created)| {
            let whole = gpu.gpu_instance(gpu_instance)?.profile.clone();
            if !whole.parts().any(|part| part == *profile) {
                let parts: Vec<_> = whole.parts().map(|part| part.to_string()).collect();
                return Err(gpu.refused(format!(
                    "GPU instance {gpu_instance} has no part `{profile}`; it has {}",
                    parts.join(", ")
                )));
            }
            gpu.place_compute_instance(gpu_instance, profile.compute_slices, None, node, created)
        })
    }

    fn destroy_compute_instance(
        &mut self,
        uuid: &str,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), GpuError> {
        self.change_gpu(uuid, &[calls::MIG_DESTROY_COMPUTE], |gpu, _| {
            gpu.destroy_compute_instance(gpu_instance, compute_instance)
        })
    }

    fn destroy(&mut self, uuid: &str, gpu_instance: u32) -> Result<(), GpuError> {
        self.change_gpu(uuid, &[calls::MIG_DESTROY], |gpu, _| {
            if let Some(pid) = gpu.holder(Some(gpu_instance)) {
                return Err(gpu.in_use(pid));
            }
            gpu.gpu_instance(gpu_instance)?.compute.clear();
            gpu.destroy(gpu_instance)
        })
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

    /// Refuses while MIG is off or a process holds the GPU outside of any instance.
    fn may_be_cut(&self) -> Result<(), GpuError> {
        if !self.mig_on() {
            return Err(self.refused("MIG is off".to_owned()));
        }
        self.whole_gpu_holder()
            .map_or(Ok(()), |pid| Err(self.in_use(pid)))
    }

    pub(crate) fn set_mig_mode(&mut self, enabled: bool) -> Result<(), GpuError> {
        self.cut()?;
        let Some(mode) = self.base.mig_mode.value().copied() else {
            return Err(GpuError::NotSupported {
                gpu: self.uuid.clone(),
                what: "MIG".to_owned(),
            });
        };
        if !self.instances.is_empty() && !enabled {
            let holder = format!("{} GPU instances exist; destroy them first", self.instances.len());
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
        self.instances
            .iter()
            .map(|instance| (instance.profile.clone(), instance.placement))
            .collect()
    }

    /// Makes the reading say what stands on the GPU.
    fn list_devices(&mut self) {
        let (card, geometry) = (self.card, self.geometry.as_ref());
        let devices = self.instances.iter().flat_map(|instance| {
            let compute = instance.compute.iter();
            compute.map(move |compute| instance.device(compute, card, geometry))
        });
        self.base.mig_devices = Reading::Value(devices.collect());
    }

    /// Creates a GPU instance and in it a compute instance of its size, without asking whether MIG is on: also how a
    /// scenario's devices come to be.
    pub(crate) fn place(
        &mut self,
        profile: &Profile,
        placement: Option<Placement>,
        node: &str,
        created: &mut u64,
    ) -> Result<MigDevice, GpuError> {
        let id = self.place_gpu_instance(profile, placement)?;
        self.place_compute_instance(id, profile.gpu_slices, None, node, created)
    }

    /// Creates a GPU instance on a GPU in MIG mode. Without a placement it lies at the first that is free.
    pub(crate) fn create_gpu_instance(
        &mut self,
        profile: &Profile,
        start: Option<u8>,
    ) -> Result<u32, GpuError> {
        self.may_be_cut()?;
        let known = self.cut()?.profile(profile);
        let placement = start.map(|start| Placement {
            start,
            size: known
                .and_then(|known| known.placements.first())
                .map_or(0, |place| place.size),
        });
        self.place_gpu_instance(profile, placement)
    }

    fn place_gpu_instance(
        &mut self,
        profile: &Profile,
        placement: Option<Placement>,
    ) -> Result<u32, GpuError> {
        let (_, placement) = find_place(self.cut()?, &self.layout(), profile, placement)
            .map_err(|reason| self.refused(reason))?;
        let taken = |id: &u32| self.instances.iter().any(|instance| instance.id == *id);
        // No card has as many places as there are numbers.
        let id = (0..GPU_INSTANCES).find(|id| !taken(id)).unwrap_or(GPU_INSTANCES);
        self.instances.push(GpuInstance {
            id,
            profile: profile.clone(),
            placement,
            compute: Vec::new(),
        });
        self.instances.sort_by_key(|instance| instance.id);
        Ok(id)
    }

    /// Creates a compute instance in a GPU instance; the device is there at once.
    pub(crate) fn place_compute_instance(
        &mut self,
        gpu_instance: u32,
        slices: u8,
        start: Option<u8>,
        node: &str,
        created: &mut u64,
    ) -> Result<MigDevice, GpuError> {
        let refused = self.refused(format!(
            "GPU instance {gpu_instance} has no room for {slices} compute slices"
        ));
        let instance = self.gpu_instance(gpu_instance)?;
        // A refused request must not use up a UUID, or a failed try would change all that follow.
        let start = instance.free_start(slices, start).ok_or(refused)?;
        let taken = |id: &u32| instance.compute.iter().any(|compute| compute.id == *id);
        let compute = ComputeInstance {
            // A GPU instance has fewer slices than there are numbers.
            id: (0..COMPUTE_INSTANCES)
                .find(|id| !taken(id))
                .unwrap_or(COMPUTE_INSTANCES),
            uuid: fresh_mig_uuid(node, created),
            start,
            slices,
        };
        instance.compute.push(compute.clone());
        instance.compute.sort_by_key(|compute| compute.id);
        let instance = instance.clone();
        self.list_devices();
        Ok(MigDevice {
            memory_used_bytes: Reading::Value(self.held_in(gpu_instance)),
            ..instance.device(&compute, self.card, self.geometry.as_ref())
        })
    }

    fn gpu_instance(&mut self, id: u32) -> Result<&mut GpuInstance, GpuError> {
        let absent = self.refused(format!("there is no GPU instance {id}"));
        self.instances
            .iter_mut()
            .find(|instance| instance.id == id)
            .ok_or(absent)
    }

    /// A process that holds this compute instance. One of which only the GPU instance is known may be in any of them.
    fn compute_holder(&self, gpu_instance: u32, compute_instance: u32) -> Option<u32> {
        let mut processes = self.base.processes.value()?.iter();
        let holder = processes.find(|process| {
            process.gpu_instance == Some(gpu_instance)
                && process.compute_instance.is_none_or(|id| id == compute_instance)
        });
        holder.map(|process| process.pid)
    }

    /// Destroys a compute instance that no process holds.
    pub(crate) fn destroy_compute_instance(&mut self, gpu_instance: u32, id: u32) -> Result<(), GpuError> {
        if let Some(pid) = self.compute_holder(gpu_instance, id) {
            return Err(self.in_use(pid));
        }
        let absent = self.refused(format!(
            "GPU instance {gpu_instance} has no compute instance {id}"
        ));
        let instance = self.gpu_instance(gpu_instance)?;
        let before = instance.compute.len();
        instance.compute.retain(|compute| compute.id != id);
        if instance.compute.len() == before {
            return Err(absent);
        }
        self.list_devices();
        Ok(())
    }

    /// Destroys a GPU instance in which nothing is left.
    pub(crate) fn destroy(&mut self, id: u32) -> Result<(), GpuError> {
        self.cut()?;
        let count = self.gpu_instance(id)?.compute.len();
        if count > 0 {
            return Err(GpuError::InUse {
                gpu: self.uuid.clone(),
                holder: format!("{count} compute instances exist in GPU instance {id}; destroy them first"),
            });
        }
        self.instances.retain(|instance| instance.id != id);
        self.list_devices();
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
            retired_pages,
            recovery_action,
            ecc,
            ecc_pending,
            ecc_corrected,
            ecc_uncorrected,
            ..
        } = &mut self.base;
        if !ecc_pending.is_absent() {
            *ecc = ecc_pending.clone();
        }
        if let Reading::Value(pages) = retired_pages {
            pages.pending = false;
        }
        if let Reading::Value(action) = recovery_action {
            *action = RecoveryAction::None;
        }
        if let Reading::Value(mode) = mig_mode {
            mode.current = mode.pending;
            // Instances live in the GPU and don't outlive a reset.
            self.instances.clear();
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
