//! MIG: modes, devices, and what a device has.

mod compute;
mod instance;
mod numbers;

#[allow(
    clippy::wildcard_imports,
    reason = "exports, which `generated` looks for here"
)]
pub(crate) use {compute::*, instance::*};

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t, nvmlDeviceAttributes_t};
use pitcrew_core::gpu::MigDevice;
use pitcrew_scenario::{Change, GpuFacts};

use crate::abi::{Answer, ReadingExt as _, code, flag};
use crate::device::enabled;
use crate::handles::Object;
use crate::world::{Device, Slice};
use numbers::Numbers;

exports! {
    fn nvmlDeviceGetMigMode(device: nvmlDevice_t, currentMode: *mut c_uint, pendingMode: *mut c_uint) |call| {
        let mode = call.gpu(&device)?.readings.mig_mode.answer()?;
        currentMode.set(flag(mode.current))?;
        pendingMode.set(flag(mode.pending))
    }

    fn nvmlDeviceSetMigMode(device: nvmlDevice_t, mode: c_uint, activationStatus: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        let wanted = enabled(mode)?;
        activationStatus.present()?;
        call.change(&Change::MigMode { gpu: gpu.index, enabled: wanted })?;
        let mode = call.gpu(&device)?.readings.mig_mode.answer()?;
        activationStatus.set(if mode.current == wanted {
            code::SUCCESS
        } else {
            nvml::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED
        })
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) |call| {
        // 0 while MIG is off (recorded), and on a card without.
        count.set(most_devices(&call.gpu(&device)?))
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(
        device: nvmlDevice_t,
        index: c_uint,
        migDevice: *mut nvmlDevice_t,
    ) |call| {
        migDevice.present()?;
        let gpu = call.gpu(&device)?;
        let devices = gpu.readings.mig_devices.answer()?;
        if index >= most_devices(&gpu).max(1) {
            return Err(code::INVALID_ARGUMENT);
        }
        let found = usize::try_from(index).ok().and_then(|index| devices.get(index));
        let object = Object::Mig { gpu: gpu.index, uuid: found.ok_or(code::NOT_FOUND)?.uuid.clone() };
        let handle = call.handles().of(object);
        migDevice.set(handle)
    }

    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, isMigDevice: *mut c_uint) |call| {
        let object = call.handles().object(device.address())?;
        match object {
            Object::Gpu(_) => isMigDevice.set(0),
            Object::Mig { .. } => isMigDevice.set(1),
            Object::GpuInstance { .. } | Object::ComputeInstance { .. } => Err(code::INVALID_ARGUMENT),
        }
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(migDevice: nvmlDevice_t, device: *mut nvmlDevice_t) |call| {
        let index = slice(call.device(&migDevice)?)?.gpu.index;
        device.set(call.gpu_handle(index))
    }

    fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint) |call| {
        id.set(slice(call.device(&device)?)?.device.gpu_instance)
    }

    fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: *mut c_uint) |call| {
        id.set(slice(call.device(&device)?)?.device.compute_instance)
    }
}

/// Refuses a whole GPU.
fn slice(device: Device) -> Answer<Slice> {
    match device {
        Device::Mig(slice) => Ok(*slice),
        Device::Gpu(_) => Err(code::INVALID_ARGUMENT),
    }
}

/// MIG devices that the GPU can have now.
fn most_devices(gpu: &GpuFacts) -> c_uint {
    let on = gpu.readings.mig_mode.value().is_some_and(|mode| mode.current);
    if on { gpu.card.mig_max_instances } else { 0 }
}

/// What the GPU instance of a device has.
fn numbers_of(gpu: &GpuFacts, device: &MigDevice) -> Answer<Numbers> {
    let instance = gpu
        .instances
        .iter()
        .find(|instance| instance.id == device.gpu_instance);
    let instance = instance.ok_or(code::NOT_FOUND)?;
    Numbers::named(gpu, &instance.profile)
}

/// Bytes of memory that a device can use: its GPU instance's.
pub(crate) fn memory_of(gpu: &GpuFacts, device: &MigDevice) -> Answer<u64> {
    Ok(numbers_of(gpu, device)?.memory_mib << 20)
}

/// What a MIG device has. Whole GPUs have no such list (recorded).
pub(crate) fn attributes(device: &Device) -> Answer<nvmlDeviceAttributes_t> {
    let Device::Mig(slice) = device else {
        return Err(code::NOT_SUPPORTED);
    };
    let numbers = numbers_of(&slice.gpu, &slice.device)?;
    let profile = &slice.device.profile;
    Ok(nvmlDeviceAttributes_t {
        multiprocessorCount: numbers.part(profile.compute_slices),
        sharedCopyEngineCount: numbers.engines.copy,
        sharedDecoderCount: numbers.engines.decoder,
        sharedEncoderCount: numbers.engines.encoder,
        sharedJpegCount: numbers.engines.jpeg,
        sharedOfaCount: numbers.engines.ofa,
        gpuInstanceSliceCount: profile.gpu_slices.into(),
        computeInstanceSliceCount: profile.compute_slices.into(),
        memorySizeMB: numbers.memory_mib,
    })
}
