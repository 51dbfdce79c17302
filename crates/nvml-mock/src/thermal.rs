//! Temperatures and fans.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t, nvmlGpuThermalSettings_t, nvmlTemperature_t};
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code};
use crate::world::small;

/// Names that a scenario's `fields` has for thresholds, in NVML's order.
const THRESHOLDS: [&str; 8] = [
    "NVML_TEMPERATURE_THRESHOLD_SHUTDOWN",
    "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",
    "NVML_TEMPERATURE_THRESHOLD_MEM_MAX",
    "NVML_TEMPERATURE_THRESHOLD_GPU_MAX",
    "NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN",
    "NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR",
    "NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX",
    "NVML_TEMPERATURE_THRESHOLD_GPS_CURR",
];

exports! {
    fn nvmlDeviceGetTemperature(device: nvmlDevice_t, sensorType: c_uint, temp: *mut c_uint) |call| {
        sensor(sensorType)?;
        let celsius = call.gpu(&device)?.readings.temperature_c.answer()?;
        temp.set(c_uint::try_from(celsius).map_err(|_| code::UNKNOWN)?)
    }

    fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, temperature: *mut nvmlTemperature_t) |call| {
        temperature.only_version()?;
        let mut info = temperature.get()?;
        sensor(info.sensorType)?;
        info.temperature = call.gpu(&device)?.readings.temperature_c.answer()?;
        temperature.set(info)
    }

    fn nvmlDeviceGetTemperatureThreshold(device: nvmlDevice_t, thresholdType: c_uint, temp: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        let at = usize::try_from(thresholdType).map_err(|_| code::INVALID_ARGUMENT)?;
        let name = THRESHOLDS.get(at).ok_or(code::INVALID_ARGUMENT)?;
        temp.set(small(call.number(&gpu, name)?)?)
    }

    fn nvmlDeviceGetThermalSettings(
        device: nvmlDevice_t,
        sensorIndex: c_uint,
        pThermalSettings: *mut nvmlGpuThermalSettings_t,
    ) |call| {
        let gpu = call.gpu(&device)?;
        // One sensor, which is also all of them (15).
        if sensorIndex != 0 && sensorIndex != 15 {
            return Err(code::INVALID_ARGUMENT);
        }
        let mut settings = pThermalSettings.get()?;
        settings.count = 1;
        let sensor = settings.sensor.first_mut().ok_or(code::UNKNOWN)?;
        sensor.controller = nvml::nvmlThermalController_t_NVML_THERMAL_CONTROLLER_GPU_INTERNAL;
        sensor.target = nvml::nvmlThermalTarget_t_NVML_THERMAL_TARGET_GPU;
        sensor.currentTemp = gpu.readings.temperature_c.answer()?;
        (sensor.defaultMinTemp, sensor.defaultMaxTemp) = (0, 0);
        pThermalSettings.set(settings)
    }

    fn nvmlDeviceGetNumFans(device: nvmlDevice_t, numFans: *mut c_uint) |call| {
        numFans.set(fans(&call.gpu(&device)?))
    }

    fn nvmlDeviceGetFanSpeed(device: nvmlDevice_t, speed: *mut c_uint) |call| {
        speed.set(call.gpu(&device)?.readings.fan_percent.answer()?)
    }

    fn nvmlDeviceGetFanSpeed_v2(device: nvmlDevice_t, fan: c_uint, speed: *mut c_uint) |call| {
        speed.set(fan_percent(&call.gpu(&device)?, fan)?)
    }

    fn nvmlDeviceGetTargetFanSpeed(device: nvmlDevice_t, fan: c_uint, targetSpeed: *mut c_uint) |call| {
        targetSpeed.set(fan_percent(&call.gpu(&device)?, fan)?)
    }

    fn nvmlDeviceGetFanControlPolicy_v2(device: nvmlDevice_t, fan: c_uint, policy: *mut c_uint) |call| {
        fan_percent(&call.gpu(&device)?, fan)?;
        policy.set(nvml::NVML_FAN_POLICY_TEMPERATURE_CONTINOUS_SW)
    }

    fn nvmlDeviceGetMinMaxFanSpeed(device: nvmlDevice_t, minSpeed: *mut c_uint, maxSpeed: *mut c_uint) |call| {
        let gpu = call.gpu(&device)?;
        fan_percent(&gpu, 0)?;
        minSpeed.set(0)?;
        maxSpeed.set(100)
    }
}

/// There is one sensor.
fn sensor(kind: c_uint) -> Answer {
    if kind == nvml::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
        Ok(())
    } else {
        Err(code::INVALID_ARGUMENT)
    }
}

/// A card that tells a fan's speed has one fan here.
fn fans(gpu: &GpuFacts) -> c_uint {
    match gpu.readings.fan_percent.answer() {
        Err(code::NOT_SUPPORTED) => 0,
        Ok(_) | Err(_) => 1,
    }
}

fn fan_percent(gpu: &GpuFacts, fan: c_uint) -> Answer<c_uint> {
    let percent = gpu.readings.fan_percent.answer()?;
    if fan < fans(gpu) {
        Ok(percent)
    } else {
        Err(code::INVALID_ARGUMENT)
    }
}
