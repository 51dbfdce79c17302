//! Processes that hold a device.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t,
};
use pitcrew_core::gpu::{GpuProcess, ProcessKind};

use crate::abi::{Answer, ReadingExt as _, code, count, list};
use crate::world::Device;

/// NVML's "no value" in numbers that have no sign.
const NOT_AVAILABLE: u64 = u64::MAX;
/// No instance.
const NO_INSTANCE: c_uint = c_uint::MAX;

macro_rules! running {
    ($($name:ident $kind:ident $of:ident $ty:ty;)*) => {
        exports! {$(
            fn $name(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut $ty) |call| {
                let processes = running(&call.device(&device)?, ProcessKind::$kind)?;
                list(&infoCount, &infos, processes.iter().map($of).collect())
            }
        )*}
    };
}
running! {
    nvmlDeviceGetComputeRunningProcesses Compute first_version nvmlProcessInfo_v1_t;
    nvmlDeviceGetComputeRunningProcesses_v2 Compute later_version nvmlProcessInfo_v2_t;
    nvmlDeviceGetComputeRunningProcesses_v3 Compute later_version nvmlProcessInfo_v2_t;
    nvmlDeviceGetGraphicsRunningProcesses Graphics first_version nvmlProcessInfo_v1_t;
    nvmlDeviceGetGraphicsRunningProcesses_v2 Graphics later_version nvmlProcessInfo_v2_t;
    nvmlDeviceGetGraphicsRunningProcesses_v3 Graphics later_version nvmlProcessInfo_v2_t;
    nvmlDeviceGetMPSComputeRunningProcesses Mps first_version nvmlProcessInfo_v1_t;
    nvmlDeviceGetMPSComputeRunningProcesses_v2 Mps later_version nvmlProcessInfo_v2_t;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 Mps later_version nvmlProcessInfo_v2_t;
}

exports! {
    fn nvmlDeviceGetRunningProcessDetailList(device: nvmlDevice_t, plist: *mut nvmlProcessDetailList_t) |call| {
        plist.only_version()?;
        let mut info = plist.get()?;
        let kind = match info.mode {
            0 => ProcessKind::Compute,
            1 => ProcessKind::Graphics,
            2 => ProcessKind::Mps,
            _ => return Err(code::INVALID_ARGUMENT),
        };
        let processes = running(&call.device(&device)?, kind)?;
        let there = count(processes.len());
        let room = std::mem::replace(&mut info.numProcArrayEntries, there);
        plist.set(info)?;
        if there > room || (there > 0 && info.procArray.is_null()) {
            return Err(code::INSUFFICIENT_SIZE);
        }
        if there == 0 {
            return Ok(());
        }
        let array = plist.pointing_to(|list| list.procArray)?;
        let details = processes.iter().map(later_version).map(|process| nvmlProcessDetail_v1_t {
            pid: process.pid,
            usedGpuMemory: process.usedGpuMemory,
            gpuInstanceId: process.gpuInstanceId,
            computeInstanceId: process.computeInstanceId,
            usedGpuCcProtectedMemory: NOT_AVAILABLE,
        });
        array.fill(processes.len(), details)
    }
}

fn memory(process: &GpuProcess) -> u64 {
    process.memory_bytes.value().copied().unwrap_or(NOT_AVAILABLE)
}

fn first_version(process: &GpuProcess) -> nvmlProcessInfo_v1_t {
    nvmlProcessInfo_v1_t {
        pid: process.pid,
        usedGpuMemory: memory(process),
    }
}

fn later_version(process: &GpuProcess) -> nvmlProcessInfo_v2_t {
    nvmlProcessInfo_v2_t {
        pid: process.pid,
        usedGpuMemory: memory(process),
        gpuInstanceId: process.gpu_instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: process.compute_instance.unwrap_or(NO_INSTANCE),
    }
}

/// Processes of this kind on a GPU or on a MIG device.
fn running(device: &Device, kind: ProcessKind) -> Answer<Vec<GpuProcess>> {
    let (readings, instance) = match device {
        Device::Gpu(gpu) => (&gpu.readings, None),
        Device::Mig(slice) => {
            let device = &slice.device;
            (
                &slice.gpu.readings,
                Some((Some(device.gpu_instance), Some(device.compute_instance))),
            )
        }
    };
    let mut processes = readings.processes.answer()?;
    processes.retain(|process| {
        process.kind == kind
            && instance.is_none_or(|of| of == (process.gpu_instance, process.compute_instance))
    });
    Ok(processes)
}
