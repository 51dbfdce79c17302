//! Profiling figures (GPM).

use std::ffi::{CStr, c_uint};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlGpmMetric_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
};

use crate::abi::{Answer, Out, ReadingExt as _, code, flag};
use crate::world::{Call, Device};

/// What a sample was taken of. The scenario's figures are rates already, so it holds no counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    gpu: u32,
    gpu_instance: Option<u32>,
}

/// More metrics than any version of NVML has in one request.
const MOST_METRICS: c_uint = 4096;

/// The beginning of the request, which is followed by the metrics.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    version: c_uint,
    count: c_uint,
    from: nvmlGpmSample_t,
    to: nvmlGpmSample_t,
}
const _: () = assert!(size_of::<Request>() == std::mem::offset_of!(nvmlGpmMetricsGet_t, metrics));

exports! {
    fn nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, gpmSupport: *mut nvmlGpmSupport_t) |call| {
        let gpu = match call.device(&device)? {
            Device::Gpu(gpu) => *gpu,
            Device::Mig(slice) => slice.gpu,
        };
        let mut support = gpmSupport.get()?;
        if support.version != nvml::NVML_GPM_SUPPORT_VERSION {
            return Err(code::VERSION_MISMATCH);
        }
        support.isSupportedDevice = flag(gpu.profiled);
        gpmSupport.set(support)
    }

    fn nvmlGpmSampleAlloc(gpmSample: *mut nvmlGpmSample_t) |call| {
        gpmSample.present()?;
        let handle = call.handles().add_sample();
        gpmSample.set(handle)
    }

    fn nvmlGpmSampleFree(gpmSample: nvmlGpmSample_t) |call| {
        call.handles().free_sample(gpmSample.address())
    }

    fn nvmlGpmSampleGet(device: nvmlDevice_t, gpmSample: nvmlGpmSample_t) |call| {
        let (gpu, gpu_instance) = match call.device(&device)? {
            Device::Gpu(gpu) => (*gpu, None),
            Device::Mig(slice) => (slice.gpu, Some(slice.device.gpu_instance)),
        };
        take(call, &gpu, gpu_instance, &gpmSample)
    }

    fn nvmlGpmMigSampleGet(device: nvmlDevice_t, gpuInstanceId: c_uint, gpmSample: nvmlGpmSample_t) |call| {
        let gpu = call.gpu(&device)?;
        if !gpu.instances.iter().any(|instance| instance.id == gpuInstanceId) {
            return Err(code::NOT_FOUND);
        }
        take(call, &gpu, Some(gpuInstanceId), &gpmSample)
    }

    fn nvmlGpmMetricsGet(metricsGet: *mut nvmlGpmMetricsGet_t) |call| {
        let request = metricsGet.cast::<Request>().get()?;
        if request.version != nvml::NVML_GPM_METRICS_GET_VERSION {
            return Err(code::VERSION_MISMATCH);
        }
        if request.count == 0 || request.count > MOST_METRICS {
            return Err(code::INVALID_ARGUMENT);
        }
        let (from, to) = {
            let mut handles = call.handles();
            (*handles.sample(request.from.addr())?, *handles.sample(request.to.addr())?)
        };
        let sample = from.filter(|from| Some(*from) == to).ok_or(code::INVALID_ARGUMENT)?;
        let gpu = call.gpu_at(sample.gpu)?;
        // Older and newer clients have room for fewer or more metrics, all at the same place.
        let metrics = metricsGet.cast::<Request>().nth(1).cast::<nvmlGpmMetric_t>();
        for at in 0..usize::try_from(request.count).unwrap_or(0) {
            let place = metrics.nth(at);
            let mut metric = place.get()?;
            let found = call.machine().metric(gpu.index, metric.metricId).answer();
            metric.nvmlReturn = found.err().unwrap_or(code::SUCCESS);
            metric.value = found.unwrap_or(0.0);
            let (name, unit) = named(metric.metricId);
            metric.metricInfo.shortName = name.as_ptr().cast_mut();
            metric.metricInfo.longName = name.as_ptr().cast_mut();
            metric.metricInfo.unit = unit.as_ptr().cast_mut();
            place.set(metric)?;
        }
        Ok(())
    }

    fn nvmlGpmQueryIfStreamingEnabled(device: nvmlDevice_t, state: *mut c_uint) |call| {
        if !call.gpu(&device)?.profiled {
            return Err(code::NOT_SUPPORTED);
        }
        state.set(0)
    }

    fn nvmlGpmSetStreamingEnabled(device: nvmlDevice_t, state: c_uint) |call| {
        // Streaming makes samples cheaper, which imaginary ones are anyhow.
        if call.gpu(&device)?.profiled && state == 0 { Ok(()) } else { Err(code::NOT_SUPPORTED) }
    }
}

fn take(
    call: &Call,
    gpu: &pitcrew_scenario::GpuFacts,
    gpu_instance: Option<u32>,
    sample: &Out<nvml::nvmlGpmSample_st>,
) -> Answer {
    if !gpu.profiled {
        return Err(code::NOT_SUPPORTED);
    }
    *call.handles().sample(sample.address())? = Some(Sample {
        gpu: gpu.index,
        gpu_instance,
    });
    Ok(())
}

/// NVML's words for a metric, and its unit.
fn named(metric: c_uint) -> (&'static CStr, &'static CStr) {
    const PERCENT: &CStr = c"%";
    const RATE: &CStr = c"MiB/s";
    match metric {
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL => (c"graphics_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL => (c"sm_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_OCCUPANCY => (c"sm_occupancy", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_INTEGER_UTIL => (c"integer_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL => (c"any_tensor_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DFMA_TENSOR_UTIL => (c"dfma_tensor_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_HMMA_TENSOR_UTIL => (c"hmma_tensor_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_IMMA_TENSOR_UTIL => (c"imma_tensor_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL => (c"dram_bw_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP64_UTIL => (c"fp64_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP32_UTIL => (c"fp32_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP16_UTIL => (c"fp16_util", PERCENT),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC => (c"pcie_tx_per_sec", RATE),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC => (c"pcie_rx_per_sec", RATE),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC => (c"nvlink_total_rx_per_sec", RATE),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC => (c"nvlink_total_tx_per_sec", RATE),
        _ => (c"", c""),
    }
}

/// The nearest whole number that fits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range before; a float's `as` saturates anyhow"
)]
pub(crate) fn whole(number: f64) -> c_uint {
    number.round().clamp(0.0, f64::from(c_uint::MAX)) as c_uint
}
