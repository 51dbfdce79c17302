//! How busy a GPU is: rates, samples, processes' shares, violations of limits.

use std::ffi::{c_uint, c_ulonglong};
use std::time::SystemTime;

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlProcessUtilizationInfo_v1_t, nvmlProcessUtilizationSample_t,
    nvmlProcessesUtilizationInfo_t, nvmlSample_t, nvmlUtilization_t, nvmlValue_st, nvmlViolationTime_t,
};
use pitcrew_core::catalog::Architecture;
use pitcrew_core::gpu::ProcessKind;
use pitcrew_scenario::GpuFacts;

use crate::abi::{Answer, ReadingExt as _, code, count, list};

/// Microseconds over which an H100 averages (recorded).
const SAMPLING_PERIOD_US: c_uint = 100_000;

exports! {
    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, utilization: *mut nvmlUtilization_t) |call| {
        let readings = call.gpu(&device)?.readings;
        utilization.set(nvmlUtilization_t {
            gpu: readings.utilization_gpu_percent.answer()?,
            memory: readings.utilization_memory_percent.answer()?,
        })
    }

    fn nvmlDeviceGetEncoderUtilization(
        device: nvmlDevice_t,
        utilization: *mut c_uint,
        samplingPeriodUs: *mut c_uint,
    ) |call| {
        utilization.set(media(&call.gpu(&device)?, Architecture::Maxwell)?)?;
        samplingPeriodUs.set(SAMPLING_PERIOD_US)
    }

    fn nvmlDeviceGetDecoderUtilization(
        device: nvmlDevice_t,
        utilization: *mut c_uint,
        samplingPeriodUs: *mut c_uint,
    ) |call| {
        utilization.set(media(&call.gpu(&device)?, Architecture::Maxwell)?)?;
        samplingPeriodUs.set(SAMPLING_PERIOD_US)
    }

    fn nvmlDeviceGetJpgUtilization(
        device: nvmlDevice_t,
        utilization: *mut c_uint,
        samplingPeriodUs: *mut c_uint,
    ) |call| {
        utilization.set(media(&call.gpu(&device)?, Architecture::Ampere)?)?;
        samplingPeriodUs.set(SAMPLING_PERIOD_US)
    }

    fn nvmlDeviceGetOfaUtilization(
        device: nvmlDevice_t,
        utilization: *mut c_uint,
        samplingPeriodUs: *mut c_uint,
    ) |call| {
        utilization.set(media(&call.gpu(&device)?, Architecture::Turing)?)?;
        samplingPeriodUs.set(SAMPLING_PERIOD_US)
    }

    fn nvmlDeviceGetSamples(
        device: nvmlDevice_t,
        type_: c_uint,
        lastSeenTimeStamp: c_ulonglong,
        sampleValType: *mut c_uint,
        sampleCount: *mut c_uint,
        samples: *mut nvmlSample_t,
    ) |call| {
        let value = sampled(&call.gpu(&device)?, type_)?;
        let now = micros_now();
        if now <= lastSeenTimeStamp {
            return Err(code::NOT_FOUND);
        }
        sampleValType.set(nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT)?;
        if samples.is_null() {
            return sampleCount.set(1);
        }
        // The imaginary driver's buffer holds the last sample only.
        let value = nvmlSample_t { timeStamp: now, sampleValue: nvmlValue_st { ullVal: value.into() } };
        list(&sampleCount, &samples, vec![value])
    }

    fn nvmlDeviceGetProcessUtilization(
        device: nvmlDevice_t,
        utilization: *mut nvmlProcessUtilizationSample_t,
        processSamplesCount: *mut c_uint,
        lastSeenTimeStamp: c_ulonglong,
    ) |call| {
        let shares = shares(&call.gpu(&device)?)?;
        let now = micros_now();
        if shares.is_empty() || now <= lastSeenTimeStamp {
            return Err(code::NOT_FOUND);
        }
        let samples = shares.into_iter().map(|share| nvmlProcessUtilizationSample_t {
            pid: share.pid,
            timeStamp: now,
            smUtil: share.gpu,
            memUtil: share.memory,
            encUtil: 0,
            decUtil: 0,
        });
        list(&processSamplesCount, &utilization, samples.collect())
    }

    fn nvmlDeviceGetProcessesUtilizationInfo(
        device: nvmlDevice_t,
        procesesUtilInfo: *mut nvmlProcessesUtilizationInfo_t,
    ) |call| {
        procesesUtilInfo.only_version()?;
        let shares = shares(&call.gpu(&device)?)?;
        let now = micros_now();
        let mut info = procesesUtilInfo.get()?;
        let there = count(shares.len());
        let room = std::mem::replace(&mut info.processSamplesCount, there);
        let seen = std::mem::replace(&mut info.lastSeenTimeStamp, now);
        if there == 0 || now <= seen {
            return Err(code::NOT_FOUND);
        }
        procesesUtilInfo.set(info)?;
        if there > room || info.procUtilArray.is_null() {
            return Err(code::INSUFFICIENT_SIZE);
        }
        let entries = shares.into_iter().map(|share| nvmlProcessUtilizationInfo_v1_t {
            timeStamp: now,
            pid: share.pid,
            smUtil: share.gpu,
            memUtil: share.memory,
            encUtil: 0,
            decUtil: 0,
            jpgUtil: 0,
            ofaUtil: 0,
        });
        let array = procesesUtilInfo.pointing_to(|info| info.procUtilArray)?;
        array.fill(entries.len(), entries)
    }

    fn nvmlDeviceGetViolationStatus(
        device: nvmlDevice_t,
        perfPolicyType: c_uint,
        violTime: *mut nvmlViolationTime_t,
    ) |call| {
        let gpu = call.gpu(&device)?;
        // Fields 74 to 81 in the order of the policies, of which two are numbered apart.
        let field = match perfPolicyType {
            0 => "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",
            1 => "NVML_FI_DEV_PERF_POLICY_THERMAL",
            2 => "NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST",
            3 => "NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT",
            4 => "NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION",
            5 => "NVML_FI_DEV_PERF_POLICY_RELIABILITY",
            10 => "NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS",
            11 => "NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS",
            _ => return Err(code::INVALID_ARGUMENT),
        };
        violTime.set(nvmlViolationTime_t {
            referenceTime: micros_now(),
            violationTime: call.number(&gpu, field)?,
        })
    }
}

/// Microseconds since 1970, as NVML stamps its samples.
pub(crate) fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// Video and image engines: nobody uses them in a scenario, and of a GPU that is cut up NVML doesn't tell.
fn media(gpu: &GpuFacts, since: Architecture) -> Answer<c_uint> {
    if cut_up(gpu) || gpu.card.architecture < since {
        return Err(code::NOT_SUPPORTED);
    }
    gpu.readings.utilization_gpu_percent.answer().map(|_busy| 0)
}

fn cut_up(gpu: &GpuFacts) -> bool {
    gpu.readings.mig_mode.value().is_some_and(|mode| mode.current)
}

fn sampled(gpu: &GpuFacts, kind: c_uint) -> Answer<c_uint> {
    let readings = &gpu.readings;
    match kind {
        nvml::nvmlSamplingType_enum_NVML_TOTAL_POWER_SAMPLES => readings.power_mw.answer(),
        nvml::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES => readings.utilization_gpu_percent.answer(),
        nvml::nvmlSamplingType_enum_NVML_MEMORY_UTILIZATION_SAMPLES => {
            readings.utilization_memory_percent.answer()
        }
        nvml::nvmlSamplingType_enum_NVML_ENC_UTILIZATION_SAMPLES
        | nvml::nvmlSamplingType_enum_NVML_DEC_UTILIZATION_SAMPLES => media(gpu, Architecture::Maxwell),
        nvml::nvmlSamplingType_enum_NVML_PROCESSOR_CLK_SAMPLES => readings.clock_sm_mhz.answer(),
        nvml::nvmlSamplingType_enum_NVML_MEMORY_CLK_SAMPLES => readings.clock_memory_mhz.answer(),
        nvml::nvmlSamplingType_enum_NVML_MODULE_POWER_SAMPLES => Err(code::NOT_SUPPORTED),
        nvml::nvmlSamplingType_enum_NVML_JPG_UTILIZATION_SAMPLES => media(gpu, Architecture::Ampere),
        nvml::nvmlSamplingType_enum_NVML_OFA_UTILIZATION_SAMPLES => media(gpu, Architecture::Turing),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

/// A process's part of what keeps the GPU busy.
struct Share {
    pid: c_uint,
    gpu: c_uint,
    memory: c_uint,
}

/// In equal parts, as the scenario says nothing of who does how much.
fn shares(gpu: &GpuFacts) -> Answer<Vec<Share>> {
    if cut_up(gpu) {
        return Err(code::NOT_SUPPORTED);
    }
    let readings = &gpu.readings;
    let (busy, memory) = (
        readings.utilization_gpu_percent.answer()?,
        readings.utilization_memory_percent.answer()?,
    );
    let mut pids: Vec<_> = readings
        .processes
        .answer()?
        .iter()
        .filter(|process| process.kind != ProcessKind::Graphics)
        .map(|process| process.pid)
        .collect();
    pids.dedup();
    let parts = count(pids.len()).max(1);
    let share = |pid| Share {
        pid,
        gpu: busy / parts,
        memory: memory / parts,
    };
    Ok(pids.into_iter().map(share).collect())
}
