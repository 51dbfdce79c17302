//! Power and energy.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlPowerValue_v2_t};
use pitcrew_scenario::{Change, GpuFacts, Value};

use crate::abi::{Answer, ReadingExt as _, code, flag};
use crate::world::Call;

exports! {
    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, power: *mut c_uint) |call| {
        power.set(call.gpu(&device)?.readings.power_mw.answer()?)
    }

    fn nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, energy: *mut c_ulonglong) |call| {
        energy.set(call.gpu(&device)?.readings.energy_mj.answer()?)
    }

    fn nvmlDeviceGetPowerManagementMode(device: nvmlDevice_t, mode: *mut c_uint) |call| {
        mode.set(flag(call.gpu(&device)?.readings.power_limit_mw.answer()? > 0))
    }

    fn nvmlDeviceGetPowerManagementLimit(device: nvmlDevice_t, limit: *mut c_uint) |call| {
        limit.set(call.gpu(&device)?.readings.power_limit_requested_mw.answer()?)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, limit: *mut c_uint) |call| {
        limit.set(call.gpu(&device)?.readings.power_limit_mw.answer()?)
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(
        device: nvmlDevice_t,
        minLimit: *mut c_uint,
        maxLimit: *mut c_uint,
    ) |call| {
        let range = call.gpu(&device)?.readings.power_limit_range_mw.answer()?;
        minLimit.set(range.min)?;
        maxLimit.set(range.max)
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(device: nvmlDevice_t, defaultLimit: *mut c_uint) |call| {
        defaultLimit.set(call.gpu(&device)?.readings.power_limit_default_mw.answer()?)
    }

    fn nvmlDeviceSetPowerManagementLimit(device: nvmlDevice_t, limit: c_uint) |call| {
        limit_to(call, &call.gpu(&device)?, limit)
    }

    fn nvmlDeviceSetPowerManagementLimit_v2(device: nvmlDevice_t, powerValue: *mut nvmlPowerValue_v2_t) |call| {
        powerValue.version(&[(size_of::<nvmlPowerValue_v2_t>(), 2)])?;
        let value = powerValue.get()?;
        // Limits of the module or the memory alone are none of the scenario's.
        if value.powerScope != 0 {
            return Err(code::NOT_SUPPORTED);
        }
        limit_to(call, &call.gpu(&device)?, value.powerValueMw)
    }
}

fn limit_to(call: &Call, gpu: &GpuFacts, milliwatts: c_uint) -> Answer {
    let range = gpu.readings.power_limit_range_mw.answer()?;
    if !(range.min..=range.max).contains(&milliwatts) {
        return Err(code::INVALID_ARGUMENT);
    }
    // Nothing else limits an imaginary GPU: what is asked for is in force.
    ["power_limit_requested_mw", "power_limit_mw"]
        .into_iter()
        .try_for_each(|field| {
            call.change(&Change::SetReading {
                gpu: gpu.index,
                field: field.to_owned(),
                value: Value::Integer(milliwatts.into()),
            })
        })
}
