//! Compute instances: parts of a GPU instance, each of which is a device.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::gpu::{GpuProcess, MigDevice};
use pitcrew_core::mig::Profile;
use pitcrew_core::ports::GpuError;

use super::{GpuInstance, MOST_PROFILES, find_instance, refused, with_holder};
use crate::call::{self, Handle};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::library::Library;

/// Engines of a compute instance are always shared (`NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`).
const SHARED_ENGINES: u32 = 0;

/// A compute instance. It lives no longer than the library.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComputeInstance<'l> {
    library: &'l Library,
    raw: sys::nvmlComputeInstance_t,
}

impl Handle for ComputeInstance<'_> {
    type Raw = sys::nvmlComputeInstance_t;
    fn raw(self) -> Self::Raw {
        self.raw
    }
}

impl ComputeInstance<'_> {
    /// Its number in the GPU instance.
    fn id(self) -> Answer<u32> {
        let functions = &self.library.functions;
        let info = match call::get_of(&functions.nvmlComputeInstanceGetInfo_v2, self) {
            // The older one doesn't write the placement at the end.
            Err(code) if code.wants_older_call() => call::get_of(&functions.nvmlComputeInstanceGetInfo, self),
            answer => answer,
        };
        info.map(|info: sys::nvmlComputeInstanceInfo_t| info.id)
    }

    pub(super) fn destroy(self) -> Answer<()> {
        call::act(&self.library.functions.nvmlComputeInstanceDestroy, self)
    }
}

impl<'l> GpuInstance<'l> {
    fn adopt(self, raw: sys::nvmlComputeInstance_t) -> ComputeInstance<'l> {
        ComputeInstance {
            library: self.library,
            raw,
        }
    }

    /// Kinds of compute instances in it.
    fn compute_profiles(self) -> impl Iterator<Item = sys::nvmlComputeInstanceProfileInfo_t> {
        (0..MOST_PROFILES).filter_map(move |profile| {
            let functions = &self.library.functions;
            call::get_of_three(
                &functions.nvmlGpuInstanceGetComputeInstanceProfileInfo,
                self,
                profile,
                SHARED_ENGINES,
            )
            .ok()
        })
    }

    pub(super) fn compute_instances(self) -> Answer<Vec<ComputeInstance<'l>>> {
        let functions = &self.library.functions;
        let mut all = Vec::new();
        let mut seen = Vec::new();
        for profile in self.compute_profiles() {
            // Kinds that differ only in their name may have one number.
            if seen.contains(&profile.id) {
                continue;
            }
            seen.push(profile.id);
            let of_kind = call::list_of_two(&functions.nvmlGpuInstanceGetComputeInstances, self, profile.id)?;
            all.extend(of_kind.into_iter().map(|raw| self.adopt(raw)));
        }
        Ok(all)
    }

    fn compute_instance(self, id: u32) -> Answer<ComputeInstance<'l>> {
        let functions = &self.library.functions;
        call::get_of_two(&functions.nvmlGpuInstanceGetComputeInstanceById, self, id)
            .map(|raw| self.adopt(raw))
    }
}

/// Creates a compute instance in a GPU instance; a device that can't be read afterwards is not left behind.
pub(crate) fn create_compute_instance(
    device: Device<'_>,
    uuid: &str,
    gpu_instance: u32,
    profile: &Profile,
) -> Result<MigDevice, GpuError> {
    let failed = |code: Code| code.of_request(uuid, "creating a compute instance");
    let instance = find_instance(device, uuid, gpu_instance)?;
    let info = instance.info().map_err(failed)?;
    let whole = device.profile_of(&info, None).map_err(failed)?;
    let known: Vec<_> = instance.compute_profiles().collect();
    let slices = u32::from(profile.compute_slices);
    // The plain kind of a size comes before its variants.
    let kind = known.iter().find(|known| known.sliceCount == slices);
    let Some(kind) = kind.filter(|_| profile.gpu_instance() == whole) else {
        let mut parts: Vec<u8> = known
            .iter()
            .filter_map(|known| u8::try_from(known.sliceCount).ok())
            .collect();
        parts.sort_unstable();
        parts.dedup();
        let part = |compute_slices| Profile {
            compute_slices,
            ..whole.clone()
        };
        let names: Vec<_> = parts
            .into_iter()
            .map(|part_of| part(part_of).to_string())
            .collect();
        return Err(refused(
            uuid,
            format!(
                "GPU instance {gpu_instance} has no part `{profile}`; it has {}",
                names.join(", ")
            ),
        ));
    };
    let functions = &device.library.functions;
    let raw = call::get_of_two(&functions.nvmlGpuInstanceCreateComputeInstance, instance, kind.id);
    let compute = raw
        .map(|raw| instance.adopt(raw))
        .map_err(|code: Code| match code {
            Code::INSUFFICIENT_RESOURCES => refused(
                uuid,
                format!("GPU instance {gpu_instance} has no room for {slices} compute slices"),
            ),
            code => failed(code),
        })?;
    let created = compute
        .id()
        .and_then(|id| Ok((id, device.mig_mode()?)))
        .map_err(failed)
        .and_then(|(id, mode)| {
            let devices = device.read_mig_devices(mode);
            let mut all = devices.value().into_iter().flatten();
            let found = all.find(|found| (found.gpu_instance, found.compute_instance) == (gpu_instance, id));
            found.cloned().ok_or_else(|| {
                let why = devices.failure().unwrap_or("the driver does not list it");
                refused(uuid, format!("the new device can't be read: {why}"))
            })
        });
    if created.is_err() {
        // Nobody would know of it; the first error is the one to tell.
        let _: Answer<()> = compute.destroy();
    }
    created
}

/// Destroys one compute instance.
pub(crate) fn destroy_compute_instance(
    device: Device<'_>,
    uuid: &str,
    gpu_instance: u32,
    id: u32,
) -> Result<(), GpuError> {
    let instance = find_instance(device, uuid, gpu_instance)?;
    let compute = instance.compute_instance(id).map_err(|code| match code {
        Code::NOT_FOUND | Code::INVALID_ARGUMENT => refused(
            uuid,
            format!("GPU instance {gpu_instance} has no compute instance {id}"),
        ),
        code => code.of_request(uuid, "MIG"),
    })?;
    let is_in_it = |process: &GpuProcess| {
        process.gpu_instance == Some(gpu_instance) && process.compute_instance.is_none_or(|held| held == id)
    };
    compute
        .destroy()
        .map_err(|code| with_holder(device, uuid, code, "destroying a compute instance", is_in_it))
}
