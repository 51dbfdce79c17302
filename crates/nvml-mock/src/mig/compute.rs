//! Compute instances: profiles, placements, creating and destroying.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlComputeInstance_st, nvmlComputeInstance_t, nvmlComputeInstanceInfo_t,
    nvmlComputeInstancePlacement_t, nvmlComputeInstanceProfileInfo_t, nvmlComputeInstanceProfileInfo_v2_t,
    nvmlComputeInstanceProfileInfo_v3_t, nvmlGpuInstance_t,
};
use pitcrew_core::mig::{Attribute, Profile};
use pitcrew_scenario::{Change, ComputeInstance, GpuFacts, GpuInstance};

use super::instance::find;
use super::numbers::Numbers;
use crate::abi::{Answer, Out, chars, code, count as counted, flag};
use crate::handles::Object;
use crate::world::Call;

/// Compute slices of each of NVML's `NVML_COMPUTE_INSTANCE_PROFILE_*`, whose number is also the profile's id.
const SLICES: [u8; 8] = [1, 2, 3, 4, 7, 8, 6, 1];

exports! {
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        gpuInstance: nvmlGpuInstance_t,
        profile: c_uint,
        engProfile: c_uint,
        info: *mut nvmlComputeInstanceProfileInfo_t,
    ) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        let slices = shared(&instance, profile, engProfile)?;
        let numbers = Numbers::named(&gpu, &instance.profile)?;
        info.set(nvmlComputeInstanceProfileInfo_t {
            id: profile,
            sliceCount: slices.into(),
            instanceCount: counted(instance.starts(slices).len()),
            multiprocessorCount: numbers.part(slices),
            sharedCopyEngineCount: numbers.engines.copy,
            sharedDecoderCount: numbers.engines.decoder,
            sharedEncoderCount: numbers.engines.encoder,
            sharedJpegCount: numbers.engines.jpeg,
            sharedOfaCount: numbers.engines.ofa,
        })
    }

    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        gpuInstance: nvmlGpuInstance_t,
        profile: c_uint,
        engProfile: c_uint,
        info: *mut nvmlComputeInstanceProfileInfo_v2_t,
    ) |call| {
        let version = info.version(&[
            (size_of::<nvmlComputeInstanceProfileInfo_v2_t>(), 2),
            (size_of::<nvmlComputeInstanceProfileInfo_v3_t>(), 3),
        ])?;
        let (gpu, instance) = find(call, &gpuInstance)?;
        let slices = shared(&instance, profile, engProfile)?;
        let numbers = Numbers::named(&gpu, &instance.profile)?;
        let name = Profile { compute_slices: slices, ..instance.profile.clone() };
        // The third version only adds to the end of the second.
        info.set(nvmlComputeInstanceProfileInfo_v2_t {
            version: info.cast::<c_uint>().get()?,
            id: profile,
            sliceCount: slices.into(),
            instanceCount: counted(instance.starts(slices).len()),
            multiprocessorCount: numbers.part(slices),
            sharedCopyEngineCount: numbers.engines.copy,
            sharedDecoderCount: numbers.engines.decoder,
            sharedEncoderCount: numbers.engines.encoder,
            sharedJpegCount: numbers.engines.jpeg,
            sharedOfaCount: numbers.engines.ofa,
            name: chars(&format!("MIG {name}")),
        })?;
        if version == 3 {
            let whole = info.cast::<nvmlComputeInstanceProfileInfo_v3_t>();
            let mut long = whole.get()?;
            let graphics = instance.profile.attribute == Some(Attribute::Graphics);
            long.capabilities = flag(graphics) * nvml::NVML_COMPUTE_INSTANCE_PROFILE_CAPS_GFX;
            whole.set(long)?;
        }
        Ok(())
    }

    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
        gpuInstance: nvmlGpuInstance_t,
        profileId: c_uint,
        count: *mut c_uint,
    ) |call| {
        let (_, instance) = find(call, &gpuInstance)?;
        let slices = slices(&instance, profileId)?;
        let free = instance.starts(slices).into_iter().filter(|&start| {
            !instance.compute.iter().any(|other| {
                start < other.start + other.slices && other.start < start + slices
            })
        });
        count.set(counted(free.count()))
    }

    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        gpuInstance: nvmlGpuInstance_t,
        profileId: c_uint,
        placements: *mut nvmlComputeInstancePlacement_t,
        count: *mut c_uint,
    ) |call| {
        let (_, instance) = find(call, &gpuInstance)?;
        let slices = slices(&instance, profileId)?;
        let starts = instance.starts(slices);
        count.set(counted(starts.len()))?;
        if placements.is_null() {
            return Ok(());
        }
        let list = starts.iter().map(|&start| nvmlComputeInstancePlacement_t {
            start: start.into(),
            size: slices.into(),
        });
        placements.fill(starts.len(), list)
    }

    fn nvmlGpuInstanceCreateComputeInstance(
        gpuInstance: nvmlGpuInstance_t,
        profileId: c_uint,
        computeInstance: *mut nvmlComputeInstance_t,
    ) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        create(call, &gpu, &instance, profileId, None, &computeInstance)
    }

    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        gpuInstance: nvmlGpuInstance_t,
        profileId: c_uint,
        placement: *const nvmlComputeInstancePlacement_t,
        computeInstance: *mut nvmlComputeInstance_t,
    ) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        let placement = placement.get()?;
        if placement.size != u32::from(slices(&instance, profileId)?) {
            return Err(code::INVALID_ARGUMENT);
        }
        let start = u8::try_from(placement.start).map_err(|_| code::INVALID_ARGUMENT)?;
        create(call, &gpu, &instance, profileId, Some(start), &computeInstance)
    }

    fn nvmlComputeInstanceDestroy(computeInstance: nvmlComputeInstance_t) |call| {
        let (gpu, instance, compute) = find_compute(call, &computeInstance)?;
        call.change(&Change::DestroyComputeInstance {
            gpu: gpu.index,
            gpu_instance: instance.id,
            compute_instance: compute.id,
        })
    }

    fn nvmlGpuInstanceGetComputeInstances(
        gpuInstance: nvmlGpuInstance_t,
        profileId: c_uint,
        computeInstances: *mut nvmlComputeInstance_t,
        count: *mut c_uint,
    ) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        let slices = slices(&instance, profileId)?;
        let found: Vec<_> = instance
            .compute
            .iter()
            // Two profiles are of one slice; instances count as the first.
            .filter(|compute| compute.slices == slices && kind_of(compute) == profileId)
            .map(|compute| handle(call, &gpu, compute))
            .collect();
        count.set(counted(found.len()))?;
        // The caller has room for as many as the profile can have.
        if found.is_empty() { Ok(()) } else { computeInstances.fill(found.len(), found) }
    }

    fn nvmlGpuInstanceGetComputeInstanceById(
        gpuInstance: nvmlGpuInstance_t,
        id: c_uint,
        computeInstance: *mut nvmlComputeInstance_t,
    ) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        let found = instance.compute.iter().find(|compute| compute.id == id);
        computeInstance.set(handle(call, &gpu, found.ok_or(code::NOT_FOUND)?))
    }

    fn nvmlComputeInstanceGetInfo(
        computeInstance: nvmlComputeInstance_t,
        info: *mut nvmlComputeInstanceInfo_t,
    ) |call| {
        // The first version ends before the placement.
        let full = compute_info(call, &computeInstance)?;
        info.cast::<FirstInfo>().set(FirstInfo {
            device: full.device,
            gpu_instance: full.gpuInstance,
            id: full.id,
            profile_id: full.profileId,
        })
    }

    fn nvmlComputeInstanceGetInfo_v2(
        computeInstance: nvmlComputeInstance_t,
        info: *mut nvmlComputeInstanceInfo_t,
    ) |call| {
        info.set(compute_info(call, &computeInstance)?)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FirstInfo {
    device: nvml::nvmlDevice_t,
    gpu_instance: nvmlGpuInstance_t,
    id: c_uint,
    profile_id: c_uint,
}
const _: () = assert!(size_of::<FirstInfo>() == std::mem::offset_of!(nvmlComputeInstanceInfo_t, placement));

/// Compute slices of a profile, which must be a part of the GPU instance.
fn slices(instance: &GpuInstance, profile: c_uint) -> Answer<u8> {
    let at = usize::try_from(profile).map_err(|_| code::INVALID_ARGUMENT)?;
    let slices = *SLICES.get(at).ok_or(code::INVALID_ARGUMENT)?;
    let revised = profile == nvml::NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE_REV1;
    let is_part = instance.profile.parts().any(|part| part.compute_slices == slices);
    if is_part && !revised {
        Ok(slices)
    } else {
        Err(code::NOT_SUPPORTED)
    }
}

/// [`slices`], of a profile that shares the engines of the GPU instance; there is no other.
fn shared(instance: &GpuInstance, profile: c_uint, engines: c_uint) -> Answer<u8> {
    if engines == nvml::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED {
        slices(instance, profile)
    } else {
        Err(code::INVALID_ARGUMENT)
    }
}

fn kind_of(compute: &ComputeInstance) -> c_uint {
    counted(
        SLICES
            .iter()
            .position(|slices| *slices == compute.slices)
            .unwrap_or(0),
    )
}

fn handle(call: &Call, gpu: &GpuFacts, compute: &ComputeInstance) -> *mut nvmlComputeInstance_st {
    call.handles().of(Object::ComputeInstance {
        gpu: gpu.index,
        uuid: compute.uuid.clone(),
    })
}

fn find_compute(
    call: &Call,
    compute: &Out<nvmlComputeInstance_st>,
) -> Answer<(GpuFacts, GpuInstance, ComputeInstance)> {
    let object = call.handles().object(compute.address())?;
    let Object::ComputeInstance { gpu, uuid } = object else {
        return Err(code::INVALID_ARGUMENT);
    };
    let gpu = call.gpu_at(gpu)?;
    let found = gpu.instances.iter().find_map(|instance| {
        let compute = instance.compute.iter().find(|compute| compute.uuid == uuid)?;
        Some((instance.clone(), compute.clone()))
    });
    let (instance, compute) = found.ok_or(code::INVALID_ARGUMENT)?;
    Ok((gpu, instance, compute))
}

fn compute_info(call: &Call, compute: &Out<nvmlComputeInstance_st>) -> Answer<nvmlComputeInstanceInfo_t> {
    let (gpu, instance, compute) = find_compute(call, compute)?;
    let gpu_instance = Object::GpuInstance {
        gpu: gpu.index,
        id: instance.id,
    };
    Ok(nvmlComputeInstanceInfo_t {
        device: call.gpu_handle(gpu.index),
        gpuInstance: call.handles().of(gpu_instance),
        id: compute.id,
        profileId: kind_of(&compute),
        placement: nvmlComputeInstancePlacement_t {
            start: compute.start.into(),
            size: compute.slices.into(),
        },
    })
}

fn create(
    call: &Call,
    gpu: &GpuFacts,
    instance: &GpuInstance,
    profile: c_uint,
    start: Option<u8>,
    to: &Out<*mut nvmlComputeInstance_st>,
) -> Answer {
    to.present()?;
    let slices = slices(instance, profile)?;
    call.change(&Change::CreateComputeInstance {
        gpu: gpu.index,
        gpu_instance: instance.id,
        slices,
        start,
    })?;
    let after = call.gpu_at(gpu.index)?;
    let now = after.instances.iter().find(|found| found.id == instance.id);
    let created = now.and_then(|now| {
        now.compute
            .iter()
            .find(|compute| !instance.compute.iter().any(|before| before.uuid == compute.uuid))
    });
    to.set(handle(call, gpu, created.ok_or(code::UNKNOWN)?))
}
