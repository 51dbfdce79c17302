//! Memory errors, and rows and pages that were replaced.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlEccErrorCounts_t, nvmlRowRemapperHistogramValues_t,
};
use pitcrew_core::catalog::Architecture;
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, Out, ReadingExt as _, code, flag};
use crate::world::Call;

exports! {
    fn nvmlDeviceGetEccMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        let (on, waiting) = (gpu.readings.ecc.answer()?, gpu.readings.ecc_pending.answer()?);
        current.set(flag(on))?;
        pending.set(flag(waiting))
    }

    fn nvmlDeviceGetDefaultEccMode(device: nvmlDevice_t, defaultMode: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        gpu.readings.ecc.answer()?;
        defaultMode.set(flag(gpu.card.class == pitcrew_core::catalog::Class::Datacentre))
    }

    fn nvmlDeviceGetTotalEccErrors(
        device: nvmlDevice_t,
        errorType: c_uint,
        counterType: c_uint,
        eccCounts: *mut c_ulonglong,
    ) |call| {
        eccCounts.set(total(call, &call.gpu(&device)?, errorType, counterType)?)
    }

    fn nvmlDeviceGetDetailedEccErrors(
        device: nvmlDevice_t,
        errorType: c_uint,
        counterType: c_uint,
        eccCounts: *mut nvmlEccErrorCounts_t,
    ) |call| {
        let gpu = call.gpu(&device)?;
        let of = |place| located(call, &gpu, errorType, counterType, place);
        eccCounts.set(nvmlEccErrorCounts_t {
            l1Cache: of("L1")?,
            l2Cache: of("L2")?,
            deviceMemory: of("DEV")?,
            registerFile: of("REG")?,
        })
    }

    fn nvmlDeviceGetMemoryErrorCounter(
        device: nvmlDevice_t,
        errorType: c_uint,
        counterType: c_uint,
        locationType: c_uint,
        count: *mut c_ulonglong,
    ) |call| {
        let gpu = call.gpu(&device)?;
        let place = match locationType {
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L1_CACHE => "L1",
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L2_CACHE => "L2",
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DEVICE_MEMORY => "DEV",
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_REGISTER_FILE => "REG",
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_TEXTURE_MEMORY => "TEX",
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_CBU => "CBU",
            nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_TEXTURE_SHM
            | nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM => return Err(code::NOT_SUPPORTED),
            _ => return Err(code::INVALID_ARGUMENT),
        };
        count.set(located(call, &gpu, errorType, counterType, place)?)
    }

    fn nvmlDeviceGetRetiredPages(
        device: nvmlDevice_t,
        cause: c_uint,
        pageCount: *mut c_uint,
        addresses: *mut c_ulonglong,
    ) |call| {
        pages(&call.gpu(&device)?, cause, &pageCount, &addresses, None)
    }

    fn nvmlDeviceGetRetiredPages_v2(
        device: nvmlDevice_t,
        cause: c_uint,
        pageCount: *mut c_uint,
        addresses: *mut c_ulonglong,
        timestamps: *mut c_ulonglong,
    ) |call| {
        pages(&call.gpu(&device)?, cause, &pageCount, &addresses, Some(&timestamps))
    }

    fn nvmlDeviceGetRetiredPagesPendingStatus(device: nvmlDevice_t, isPending: *mut c_uint) |call| {
        isPending.set(flag(call.gpu(&device)?.readings.retired_pages.answer()?.pending))
    }

    fn nvmlDeviceGetRemappedRows(
        device: nvmlDevice_t,
        corrRows: *mut c_uint,
        uncRows: *mut c_uint,
        isPending: *mut c_uint,
        failureOccurred: *mut c_uint,
    ) |call| {
        let rows = call.gpu(&device)?.readings.remapped_rows.answer()?;
        corrRows.set(rows.correctable)?;
        uncRows.set(rows.uncorrectable)?;
        isPending.set(flag(rows.pending))?;
        failureOccurred.set(flag(rows.failure))
    }

    fn nvmlDeviceGetRowRemapperHistogram(
        device: nvmlDevice_t,
        values: *mut nvmlRowRemapperHistogramValues_t,
    ) |call| {
        let gpu = call.gpu(&device)?;
        let rows = gpu.readings.remapped_rows.answer()?;
        // Banks of an H100 with all spare rows left, as recorded; of other cards nobody says.
        let banks = match (gpu.card.architecture, gpu.card.memory_type.as_str()) {
            (Architecture::Hopper, "HBM3") => 2560_u32,
            _ => return Err(code::NOT_SUPPORTED),
        };
        // Each remapped row is taken to lie in a bank of its own; after a failure one bank has no row left.
        let none = flag(rows.failure);
        let high = rows.correctable.saturating_add(rows.uncorrectable).min(banks - none);
        values.set(nvmlRowRemapperHistogramValues_t {
            max: banks - high - none,
            high,
            partial: 0,
            low: 0,
            none,
        })
    }
}

/// `SBE` or `DBE`, and `VOL` or `AGG`, as fields are named.
fn kind(error: c_uint, counter: c_uint) -> Answer<(&'static str, &'static str)> {
    let error = match error {
        nvml::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => "SBE",
        nvml::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => "DBE",
        _ => return Err(code::INVALID_ARGUMENT),
    };
    let counter = match counter {
        nvml::nvmlEccCounterType_enum_NVML_VOLATILE_ECC => "VOL",
        nvml::nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => "AGG",
        _ => return Err(code::INVALID_ARGUMENT),
    };
    Ok((error, counter))
}

fn total(call: &Call, gpu: &GpuFacts, error: c_uint, counter: c_uint) -> Answer<u64> {
    let (error, counter) = kind(error, counter)?;
    call.number(gpu, &format!("NVML_FI_DEV_ECC_{error}_{counter}_TOTAL"))
}

fn located(call: &Call, gpu: &GpuFacts, error: c_uint, counter: c_uint, place: &str) -> Answer<u64> {
    let (error, counter) = kind(error, counter)?;
    call.number(gpu, &format!("NVML_FI_DEV_ECC_{error}_{counter}_{place}"))
}

/// As many pages as the reading says, the first ones of the memory: where they lie means nothing.
fn pages(
    gpu: &GpuFacts,
    cause: c_uint,
    count: &Out<c_uint>,
    addresses: &Out<c_ulonglong>,
    timestamps: Option<&Out<c_ulonglong>>,
) -> Answer {
    let retired = gpu.readings.retired_pages.answer();
    let there = match cause {
        nvml::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS => {
            retired?.single_bit
        }
        nvml::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR => {
            retired?.double_bit
        }
        _ => return Err(code::INVALID_ARGUMENT),
    };
    let room = count.get()?;
    count.set(there)?;
    if addresses.is_null() && room == 0 {
        return Ok(());
    }
    if there > room {
        return Err(code::INSUFFICIENT_SIZE);
    }
    let number = usize::try_from(there).unwrap_or(0);
    addresses.fill(number, (0..u64::from(there)).map(|page| page * 4096))?;
    timestamps.map_or(Ok(()), |timestamps| timestamps.fill(number, std::iter::repeat(0)))
}
