//! Field values: many figures in one call, each with its own result.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t, nvmlFieldValue_t, nvmlValue_st};
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, code};
use crate::generated::FIELD_IDS;
use crate::nvlink;
use crate::utilization::micros_now;
use crate::world::Call;

exports! {
    fn nvmlDeviceGetFieldValues(
        device: nvmlDevice_t,
        valuesCount: c_int,
        values: *mut nvmlFieldValue_t,
    ) |call| {
        let gpu = call.gpu(&device)?;
        let count = usize::try_from(valuesCount).map_err(|_| code::INVALID_ARGUMENT)?;
        if count == 0 {
            return Err(code::INVALID_ARGUMENT);
        }
        for at in 0..count {
            let place = values.nth(at);
            let mut value = place.get()?;
            value.timestamp = i64::try_from(micros_now()).unwrap_or(i64::MAX);
            value.latencyUsec = 0;
            match field(call, &gpu, value.fieldId, value.scopeId) {
                Ok(found) => {
                    value.nvmlReturn = code::SUCCESS;
                    // 64 bits hold what the smaller parts of the union are read from, on a little-endian machine.
                    value.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    value.value = nvmlValue_st { ullVal: found };
                }
                Err(error) => {
                    value.nvmlReturn = error;
                    value.value = nvmlValue_st { ullVal: 0 };
                }
            }
            place.set(value)?;
        }
        Ok(())
    }
}

/// One field. Some ids have two names, under either of which a scenario may give the figure.
fn field(call: &Call, gpu: &GpuFacts, id: u32, scope: u32) -> Answer<u64> {
    let names = FIELD_IDS
        .iter()
        .filter(|(known, _)| *known == id)
        .map(|(_, name)| *name);
    let mut error = code::INVALID_ARGUMENT;
    for name in names {
        let found = match name {
            "NVML_FI_DEV_NVLINK_GET_STATE" => nvlink::is_active(gpu, scope).map(u64::from),
            "NVML_FI_DEV_NVLINK_GET_SPEED" => nvlink::speed(call, gpu, scope),
            "NVML_FI_DEV_NVLINK_GET_VERSION" => nvlink::version(gpu, scope).map(u64::from),
            "NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT" => nvlink::to_switches(gpu).map(u64::from),
            _ => call.number(gpu, name),
        };
        match found {
            Ok(found) => return Ok(found),
            Err(code) => error = code,
        }
    }
    Err(error)
}
