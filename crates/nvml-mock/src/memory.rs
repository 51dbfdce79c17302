//! Memory and BAR1.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlBAR1Memory_t, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t};
use pitcrew_core::Reading;

use crate::abi::{Answer, ReadingExt as _, code};
use crate::mig::memory_of;
use crate::world::Device;

/// Bytes of memory.
struct Memory {
    total: u64,
    reserved: Reading<u64>,
    free: u64,
    used: u64,
}

exports! {
    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: *mut nvmlMemory_t) |call| {
        let Memory { total, free, .. } = of(&call.device(&device)?)?;
        // The first version counts what the driver keeps for itself as used.
        memory.set(nvmlMemory_t { total, free, used: total.saturating_sub(free) })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) |call| {
        memory.version(&[(size_of::<nvmlMemory_v2_t>(), 2)])?;
        let Memory { total, reserved, free, used } = of(&call.device(&device)?)?;
        let reserved = match reserved.answer() {
            // A driver before R510, which has the first version only.
            Err(code::NOT_SUPPORTED) => return Err(code::VERSION_MISMATCH),
            answer => answer?,
        };
        memory.set(nvmlMemory_v2_t { version: memory.get()?.version, total, reserved, free, used })
    }

    fn nvmlDeviceGetBAR1MemoryInfo(device: nvmlDevice_t, bar1Memory: *mut nvmlBAR1Memory_t) |call| {
        let readings = call.gpu(&device)?.readings;
        let (total, used) = (readings.bar1_total_bytes.answer()?, readings.bar1_used_bytes.answer()?);
        bar1Memory.set(nvmlBAR1Memory_t {
            bar1Total: total,
            bar1Free: total.saturating_sub(used),
            bar1Used: used,
        })
    }

    fn nvmlDeviceGetMemoryBusWidth(device: nvmlDevice_t, busWidth: *mut c_uint) |call| {
        busWidth.set(call.gpu(&device)?.readings.memory_bus_bits.answer()?)
    }
}

fn of(device: &Device) -> Answer<Memory> {
    match device {
        Device::Gpu(gpu) => {
            let readings = &gpu.readings;
            let total = readings.memory_total_bytes.answer()?;
            let used = readings.memory_used_bytes.answer()?;
            let free = readings.memory_free_bytes.answer()?;
            Ok(Memory {
                total,
                reserved: readings.memory_reserved_bytes.clone(),
                free,
                used,
            })
        }
        Device::Mig(slice) => {
            let total = memory_of(&slice.gpu, &slice.device)?;
            let used = slice.device.memory_used_bytes.answer()?;
            Ok(Memory {
                total,
                reserved: Reading::Value(0),
                free: total.saturating_sub(used),
                used,
            })
        }
    }
}
