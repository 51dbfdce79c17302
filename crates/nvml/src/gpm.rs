//! GPU performance monitoring (Hopper and later): figures over the time between two samples.

use std::sync::Arc;

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::Reading;

use crate::call::{self, Handle, Plain as _};
use crate::code::{Answer, Code, reading};
use crate::device::Device;
use crate::library::Library;

/// What is said of a GPU that was never sampled before.
const FIRST: &str = "there is no earlier sample to compare with: ask again";

/// A sample's memory, given back when dropped.
#[derive(Debug)]
struct Sample {
    library: Arc<Library>,
    raw: sys::nvmlGpmSample_t,
}

#[expect(unsafe_code, reason = "a handle of C goes from thread to thread")]
// SAFETY: the sample belongs to the library, which keeps no state of threads and may be called from any.
unsafe impl Send for Sample {}

/// A sample as an argument of a call.
#[derive(Clone, Copy)]
struct SampleHandle(sys::nvmlGpmSample_t);

impl Handle for SampleHandle {
    type Raw = sys::nvmlGpmSample_t;
    fn raw(self) -> Self::Raw {
        self.0
    }
}

impl Sample {
    fn new(library: &Arc<Library>) -> Answer<Self> {
        let raw = call::get(&library.functions.nvmlGpmSampleAlloc)?;
        Ok(Self {
            library: Arc::clone(library),
            raw,
        })
    }

    /// Takes the figures of now. For a MIG device they are those of its GPU instance.
    fn take(&mut self, device: Device<'_>, gpu_instance: Option<u32>) -> Answer<()> {
        let functions = &self.library.functions;
        let sample = SampleHandle(self.raw);
        match gpu_instance {
            Some(id) => call::act_on_three(&functions.nvmlGpmMigSampleGet, device, id, sample),
            None => call::act_on_two(&functions.nvmlGpmSampleGet, device, sample),
        }
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        // Nothing could be done about a library that will not take it back.
        let _: Answer<()> = call::act(&self.library.functions.nvmlGpmSampleFree, SampleHandle(self.raw));
    }
}

/// The samples of one GPU or MIG device that are kept between two calls.
#[derive(Debug)]
pub(crate) struct Samples {
    last: Sample,
    spare: Sample,
    has_last: bool,
}

impl Samples {
    pub(crate) fn new(library: &Arc<Library>) -> Answer<Self> {
        Ok(Self {
            last: Sample::new(library)?,
            spare: Sample::new(library)?,
            has_last: false,
        })
    }

    /// Figures since the last call, which the next one will start from.
    pub(crate) fn read(
        &mut self,
        device: Device<'_>,
        gpu_instance: Option<u32>,
        metrics: &[u32],
    ) -> Answer<Vec<Reading<f64>>> {
        self.spare.take(device, gpu_instance)?;
        std::mem::swap(&mut self.last, &mut self.spare);
        if !std::mem::replace(&mut self.has_last, true) {
            return Ok(metrics
                .iter()
                .map(|_| Reading::Failed(FIRST.to_owned()))
                .collect());
        }
        between(&self.spare, &self.last, metrics)
    }
}

/// True when this GPU has them: a question for the driver, not for a name.
pub(crate) fn is_supported(device: Device<'_>) -> Answer<bool> {
    let asked = sys::nvmlGpmSupport_t {
        version: sys::NVML_GPM_SUPPORT_VERSION,
        isSupportedDevice: 0,
    };
    let functions = &device.library.functions;
    call::get_into(&functions.nvmlGpmQueryDeviceSupport, device, asked)
        .map(|support| support.isSupportedDevice != 0)
}

fn between(earlier: &Sample, later: &Sample, metrics: &[u32]) -> Answer<Vec<Reading<f64>>> {
    let mut found = Vec::with_capacity(metrics.len());
    // Large, hence not on the stack.
    let mut request = Box::new(sys::nvmlGpmMetricsGet_t::zeroed());
    for batch in metrics.chunks(request.metrics.len()) {
        *request = sys::nvmlGpmMetricsGet_t::zeroed();
        request.version = sys::NVML_GPM_METRICS_GET_VERSION;
        request.numMetrics = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        request.sample1 = earlier.raw;
        request.sample2 = later.raw;
        for (metric, id) in request.metrics.iter_mut().zip(batch) {
            metric.metricId = *id;
            metric.nvmlReturn = Code::NOT_SUPPORTED.0;
        }
        match call::exchange(&later.library.functions.nvmlGpmMetricsGet, &mut *request) {
            // One number that this driver doesn't know must not cost the others.
            Err(Code::INVALID_ARGUMENT) if batch.len() > 1 => {
                for metric in batch {
                    found.append(&mut between(earlier, later, &[*metric])?);
                }
                continue;
            }
            Err(Code::INVALID_ARGUMENT) => {
                found.push(Reading::NotSupported);
                continue;
            }
            answer => answer?,
        }
        let answers = request.metrics.iter().take(batch.len());
        found.extend(answers.map(|metric| {
            // A number that the driver has never heard of succeeds with 0 (seen on an H100, R580); it has no name then.
            if metric.metricInfo.shortName.is_null() {
                return Reading::NotSupported;
            }
            decode(metric.nvmlReturn, metric.value)
        }));
    }
    Ok(found)
}

/// One figure. A number that NVML doesn't know, or this card doesn't have, is refused as an argument.
fn decode(code: u32, value: f64) -> Reading<f64> {
    match Code::check(code) {
        Ok(()) if value.is_finite() => Reading::Value(value),
        Ok(()) => Reading::Failed(format!("the driver says {value}")),
        Err(Code::INVALID_ARGUMENT) => Reading::NotSupported,
        Err(code) => reading(Err(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_a_number_or_a_reason() {
        assert_eq!(decode(0, 42.5), Reading::Value(42.5));
        assert_eq!(decode(3, 0.0), Reading::NotSupported);
        assert_eq!(decode(2, 0.0), Reading::NotSupported);
        assert_eq!(decode(21, 0.0), Reading::Failed("No Data".to_owned()));
        assert!(decode(0, f64::NAN).failure().is_some());
    }
}
