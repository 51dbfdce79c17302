//! GPU instances: profiles, placements, creating and destroying.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlGpuInstance_st, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t,
    nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
    nvmlGpuInstanceProfileInfo_v3_t,
};
use pitcrew_core::mig::{Attribute, Engines, Layout};
use pitcrew_scenario::{Change, GpuFacts, GpuInstance};

use super::numbers::Numbers;
use crate::abi::{Answer, Out, ReadingExt as _, chars, code, count as counted, flag};
use crate::handles::Object;
use crate::world::Call;

exports! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: nvmlDevice_t,
        profile: c_uint,
        info: *mut nvmlGpuInstanceProfileInfo_t,
    ) |call| {
        let numbers = Numbers::of_kind(&call.gpu(&device)?, profile)?;
        let Engines { copy, decoder, encoder, jpeg, ofa } = numbers.engines;
        info.set(nvmlGpuInstanceProfileInfo_t {
            id: numbers.id,
            isP2pSupported: 0,
            sliceCount: numbers.slices,
            instanceCount: numbers.instances,
            multiprocessorCount: numbers.multiprocessors,
            copyEngineCount: copy,
            decoderCount: decoder,
            encoderCount: encoder,
            jpegCount: jpeg,
            ofaCount: ofa,
            memorySizeMB: numbers.memory_mib,
        })
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(
        device: nvmlDevice_t,
        profile: c_uint,
        info: *mut nvmlGpuInstanceProfileInfo_v2_t,
    ) |call| {
        let numbers = Numbers::of_kind(&call.gpu(&device)?, profile);
        set_versioned(&info, numbers)
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(
        device: nvmlDevice_t,
        profileId: c_uint,
        info: *mut nvmlGpuInstanceProfileInfo_v2_t,
    ) |call| {
        let numbers = Numbers::of_id(&call.gpu(&device)?, profileId);
        set_versioned(&info, numbers)
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements(
        device: nvmlDevice_t,
        profileId: c_uint,
        placements: *mut nvmlGpuInstancePlacement_t,
        count: *mut c_uint,
    ) |call| {
        possible(&call.gpu(&device)?, profileId, &placements, &count)
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: nvmlDevice_t,
        profileId: c_uint,
        placements: *mut nvmlGpuInstancePlacement_t,
        count: *mut c_uint,
    ) |call| {
        possible(&call.gpu(&device)?, profileId, &placements, &count)
    }

    fn nvmlDeviceGetGpuInstanceRemainingCapacity(
        device: nvmlDevice_t,
        profileId: c_uint,
        count: *mut c_uint,
    ) |call| {
        let gpu = cut(call.gpu(&device)?)?;
        count.set(remaining(&gpu, &Numbers::of_id(&gpu, profileId)?))
    }

    fn nvmlDeviceCreateGpuInstance(
        device: nvmlDevice_t,
        profileId: c_uint,
        gpuInstance: *mut nvmlGpuInstance_t,
    ) |call| {
        create(call, &cut(call.gpu(&device)?)?, profileId, None, &gpuInstance)
    }

    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: nvmlDevice_t,
        profileId: c_uint,
        placement: *const nvmlGpuInstancePlacement_t,
        gpuInstance: *mut nvmlGpuInstance_t,
    ) |call| {
        create(call, &cut(call.gpu(&device)?)?, profileId, Some(placement.get()?), &gpuInstance)
    }

    fn nvmlGpuInstanceDestroy(gpuInstance: nvmlGpuInstance_t) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        call.change(&Change::DestroyGpuInstance { gpu: gpu.index, gpu_instance: instance.id })
    }

    fn nvmlDeviceGetGpuInstances(
        device: nvmlDevice_t,
        profileId: c_uint,
        gpuInstances: *mut nvmlGpuInstance_t,
        count: *mut c_uint,
    ) |call| {
        let gpu = cut(call.gpu(&device)?)?;
        let numbers = Numbers::of_id(&gpu, profileId)?;
        let found: Vec<_> = gpu
            .instances
            .iter()
            .filter(|instance| instance.profile == numbers.profile)
            .map(|instance| handle(call, &gpu, instance.id))
            .collect();
        count.set(counted(found.len()))?;
        // The caller has room for as many as the profile can have.
        if found.is_empty() { Ok(()) } else { gpuInstances.fill(found.len(), found) }
    }

    fn nvmlDeviceGetGpuInstanceById(
        device: nvmlDevice_t,
        id: c_uint,
        gpuInstance: *mut nvmlGpuInstance_t,
    ) |call| {
        let gpu = cut(call.gpu(&device)?)?;
        if !gpu.instances.iter().any(|instance| instance.id == id) {
            return Err(code::NOT_FOUND);
        }
        gpuInstance.set(handle(call, &gpu, id))
    }

    fn nvmlGpuInstanceGetInfo(gpuInstance: nvmlGpuInstance_t, info: *mut nvmlGpuInstanceInfo_t) |call| {
        let (gpu, instance) = find(call, &gpuInstance)?;
        info.set(nvmlGpuInstanceInfo_t {
            device: call.gpu_handle(gpu.index),
            id: instance.id,
            profileId: Numbers::named(&gpu, &instance.profile)?.id,
            placement: nvmlGpuInstancePlacement_t {
                start: instance.placement.start.into(),
                size: instance.placement.size.into(),
            },
        })
    }
}

/// A GPU that MIG is on of.
fn cut(gpu: GpuFacts) -> Answer<GpuFacts> {
    let on = gpu.readings.mig_mode.answer()?.current;
    if on { Ok(gpu) } else { Err(code::NOT_SUPPORTED) }
}

fn handle(call: &Call, gpu: &GpuFacts, id: u32) -> *mut nvmlGpuInstance_st {
    call.handles().of(Object::GpuInstance { gpu: gpu.index, id })
}

/// The instance of a handle, and its GPU.
pub(crate) fn find(call: &Call, instance: &Out<nvmlGpuInstance_st>) -> Answer<(GpuFacts, GpuInstance)> {
    let object = call.handles().object(instance.address())?;
    let Object::GpuInstance { gpu, id } = object else {
        return Err(code::INVALID_ARGUMENT);
    };
    let gpu = call.gpu_at(gpu)?;
    let found = gpu.instances.iter().find(|instance| instance.id == id).cloned();
    // What was destroyed is gone, and its handle with it.
    let instance = found.ok_or(code::INVALID_ARGUMENT)?;
    Ok((gpu, instance))
}

/// The second version, or the third, which has capabilities in place of the one flag.
fn set_versioned(info: &Out<nvmlGpuInstanceProfileInfo_v2_t>, numbers: Answer<Numbers>) -> Answer {
    let version = info.version(&[
        (size_of::<nvmlGpuInstanceProfileInfo_v2_t>(), 2),
        (size_of::<nvmlGpuInstanceProfileInfo_v3_t>(), 3),
    ])?;
    let given = info.cast::<c_uint>().get()?;
    let numbers = numbers?;
    let engines = numbers.engines;
    let name = format!("MIG {}", numbers.profile);
    if version == 2 {
        return info.set(nvmlGpuInstanceProfileInfo_v2_t {
            version: given,
            id: numbers.id,
            isP2pSupported: 0,
            sliceCount: numbers.slices,
            instanceCount: numbers.instances,
            multiprocessorCount: numbers.multiprocessors,
            copyEngineCount: engines.copy,
            decoderCount: engines.decoder,
            encoderCount: engines.encoder,
            jpegCount: engines.jpeg,
            ofaCount: engines.ofa,
            memorySizeMB: numbers.memory_mib,
            name: chars(&name),
        });
    }
    let graphics = numbers.profile.attribute == Some(Attribute::Graphics);
    info.cast::<nvmlGpuInstanceProfileInfo_v3_t>()
        .set(nvmlGpuInstanceProfileInfo_v3_t {
            version: given,
            id: numbers.id,
            sliceCount: numbers.slices,
            instanceCount: numbers.instances,
            multiprocessorCount: numbers.multiprocessors,
            copyEngineCount: engines.copy,
            decoderCount: engines.decoder,
            encoderCount: engines.encoder,
            jpegCount: engines.jpeg,
            ofaCount: engines.ofa,
            memorySizeMB: numbers.memory_mib,
            name: chars(&name),
            capabilities: flag(graphics) * nvml::NVML_GPU_INSTANCE_PROFILE_CAPS_GFX,
        })
}

fn possible(
    gpu: &GpuFacts,
    id: c_uint,
    placements: &Out<nvmlGpuInstancePlacement_t>,
    count: &Out<c_uint>,
) -> Answer {
    let numbers = Numbers::of_id(gpu, id)?;
    let geometry = gpu.geometry.as_ref().ok_or(code::NOT_SUPPORTED)?;
    let known = geometry.profile(&numbers.profile).ok_or(code::NOT_SUPPORTED)?;
    count.set(counted(known.placements.len()))?;
    if placements.is_null() {
        return Ok(());
    }
    // The caller has asked for the number before, and made room.
    let list = known.placements.iter().map(|place| nvmlGpuInstancePlacement_t {
        start: place.start.into(),
        size: place.size.into(),
    });
    placements.fill(known.placements.len(), list)
}

/// How many more could be created, one after the other.
fn remaining(gpu: &GpuFacts, numbers: &Numbers) -> c_uint {
    let Some(geometry) = &gpu.geometry else {
        return 0;
    };
    let standing: Layout = gpu
        .instances
        .iter()
        .map(|instance| (instance.profile.clone(), instance.placement))
        .collect();
    counted(standing.remaining(geometry, &numbers.profile))
}

fn create(
    call: &Call,
    gpu: &GpuFacts,
    id: c_uint,
    placement: Option<nvmlGpuInstancePlacement_t>,
    gpu_instance: &Out<*mut nvmlGpuInstance_st>,
) -> Answer {
    gpu_instance.present()?;
    let numbers = Numbers::of_id(gpu, id)?;
    let start = match placement {
        None => None,
        Some(wanted) => {
            let geometry = gpu.geometry.as_ref().ok_or(code::NOT_SUPPORTED)?;
            let places = geometry
                .profile(&numbers.profile)
                .map_or(&[][..], |known| &known.placements);
            let found = places
                .iter()
                .find(|place| u32::from(place.start) == wanted.start && u32::from(place.size) == wanted.size);
            Some(found.ok_or(code::INVALID_ARGUMENT)?.start)
        }
    };
    let before: Vec<u32> = gpu.instances.iter().map(|instance| instance.id).collect();
    call.change(&Change::CreateGpuInstance {
        gpu: gpu.index,
        profile: numbers.profile.to_string(),
        start,
    })?;
    let after = call.gpu_at(gpu.index)?;
    let created = after.instances.iter().find(|instance| {
        instance.profile == numbers.profile
            && !before.contains(&instance.id)
            && start.is_none_or(|start| instance.placement.start == start)
    });
    gpu_instance.set(handle(call, gpu, created.ok_or(code::UNKNOWN)?.id))
}
