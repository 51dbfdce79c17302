//! Clocks, why they are where they are, performance states.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t};
use pitcrew_core::catalog::Class;
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code};
use crate::world::{Call, small};

/// All reasons that NVML names.
const ALL_REASONS: c_ulonglong = 0x1ff;

exports! {
    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, type_: c_uint, clock: *mut c_uint) |call| {
        clock.set(now(call, &call.gpu(&device)?, type_)?)
    }

    fn nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, type_: c_uint, clock: *mut c_uint) |call| {
        clock.set(highest(call, &call.gpu(&device)?, type_)?)
    }

    fn nvmlDeviceGetClock(device: nvmlDevice_t, clockType: c_uint, clockId: c_uint, clockMHz: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        clockMHz.set(match clockId {
            nvml::nvmlClockId_enum_NVML_CLOCK_ID_CURRENT => now(call, &gpu, clockType)?,
            nvml::nvmlClockId_enum_NVML_CLOCK_ID_CUSTOMER_BOOST_MAX => highest(call, &gpu, clockType)?,
            nvml::nvmlClockId_enum_NVML_CLOCK_ID_APP_CLOCK_TARGET
            | nvml::nvmlClockId_enum_NVML_CLOCK_ID_APP_CLOCK_DEFAULT => application(call, &gpu, clockType)?,
            _ => return Err(code::INVALID_ARGUMENT),
        })
    }

    fn nvmlDeviceGetMaxCustomerBoostClock(device: nvmlDevice_t, clockType: c_uint, clockMHz: *mut c_uint) |call| {
        clockMHz.set(highest(call, &call.gpu(&device)?, clockType)?)
    }

    fn nvmlDeviceGetApplicationsClock(device: nvmlDevice_t, clockType: c_uint, clockMHz: *mut c_uint) |call| {
        clockMHz.set(application(call, &call.gpu(&device)?, clockType)?)
    }

    fn nvmlDeviceGetDefaultApplicationsClock(device: nvmlDevice_t, clockType: c_uint, clockMHz: *mut c_uint) |call| {
        clockMHz.set(application(call, &call.gpu(&device)?, clockType)?)
    }

    fn nvmlDeviceGetCurrentClocksEventReasons(device: nvmlDevice_t, clocksEventReasons: *mut c_ulonglong) |call| {
        clocksEventReasons.set(call.gpu(&device)?.readings.clocks_event_reasons.answer()?)
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(
        device: nvmlDevice_t,
        clocksThrottleReasons: *mut c_ulonglong,
    ) |call| {
        clocksThrottleReasons.set(call.gpu(&device)?.readings.clocks_event_reasons.answer()?)
    }

    fn nvmlDeviceGetSupportedClocksEventReasons(
        device: nvmlDevice_t,
        supportedClocksEventReasons: *mut c_ulonglong,
    ) |call| {
        call.gpu(&device)?.readings.clocks_event_reasons.answer()?;
        supportedClocksEventReasons.set(ALL_REASONS)
    }

    fn nvmlDeviceGetSupportedClocksThrottleReasons(
        device: nvmlDevice_t,
        supportedClocksThrottleReasons: *mut c_ulonglong,
    ) |call| {
        call.gpu(&device)?.readings.clocks_event_reasons.answer()?;
        supportedClocksThrottleReasons.set(ALL_REASONS)
    }

    fn nvmlDeviceGetPerformanceState(device: nvmlDevice_t, pState: *mut c_uint) |call| {
        pState.set(call.gpu(&device)?.readings.performance_state.answer()?)
    }

    fn nvmlDeviceGetPowerState(device: nvmlDevice_t, pState: *mut c_uint) |call| {
        pState.set(call.gpu(&device)?.readings.performance_state.answer()?)
    }
}

fn now(call: &Call, gpu: &GpuFacts, kind: c_uint) -> Answer<c_uint> {
    let readings = &gpu.readings;
    match kind {
        nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS | nvml::nvmlClockType_enum_NVML_CLOCK_SM => {
            readings.clock_sm_mhz.answer()
        }
        nvml::nvmlClockType_enum_NVML_CLOCK_MEM => readings.clock_memory_mhz.answer(),
        nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO => small(call.number(gpu, "NVML_CLOCK_VIDEO")?),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

fn highest(call: &Call, gpu: &GpuFacts, kind: c_uint) -> Answer<c_uint> {
    let readings = &gpu.readings;
    match kind {
        nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS | nvml::nvmlClockType_enum_NVML_CLOCK_SM => {
            readings.clock_sm_max_mhz.answer()
        }
        nvml::nvmlClockType_enum_NVML_CLOCK_MEM => readings.clock_memory_max_mhz.answer(),
        nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO => small(call.number(gpu, "NVML_CLOCK_VIDEO_MAX")?),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

/// Clocks that applications ask for: on cards for datacentres the highest, unless somebody set others; an H100 says so
/// (recorded).
fn application(call: &Call, gpu: &GpuFacts, kind: c_uint) -> Answer<c_uint> {
    if gpu.card.class != Class::Datacentre || kind == nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO {
        return Err(code::NOT_SUPPORTED);
    }
    highest(call, gpu, kind)
}
