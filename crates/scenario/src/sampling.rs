//! Field values and profiling figures.

use pitcrew_core::Reading;
use pitcrew_core::catalog::Architecture;
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::nvlink::{self, NvLink};
use pitcrew_core::ports::{GpuError, Sampling};

use crate::calls;
use crate::machine::Machine;
use crate::state::GpuState;

/// GPM metrics below this one are percentages.
const FIRST_RATE: u32 = 20;

impl Sampling for Machine {
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        self.on_gpu(uuid, &[calls::FIELDS], |gpu, _| {
            let readings = gpu.readings();
            Ok(names.iter().map(|name| gpu.field(&readings, name)).collect())
        })
    }

    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        self.on_gpu(uuid, &[calls::NVLINK_ERRORS], |gpu, _| {
            gpu.nvlinks().ok_or_else(|| GpuError::NotSupported {
                gpu: uuid.to_owned(),
                what: "NVLinks".to_owned(),
            })
        })
    }

    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        self.on_gpu(uuid, &[calls::GPM], |gpu, _| {
            if gpu.gpm.is_empty() {
                return Err(GpuError::NotSupported {
                    gpu: uuid.to_owned(),
                    what: "profiling (GPM)".to_owned(),
                });
            }
            Ok(metrics.iter().map(|&metric| gpu.metric(metric)).collect())
        })
    }
}

impl GpuState {
    /// A field by NVML's name: from the readings where one of them says the same, so that the two never differ.
    pub(crate) fn field(&self, readings: &GpuReadings, name: &str) -> Reading<u64> {
        let GpuReadings {
            remapped_rows,
            retired_pages,
            power_limit_range_mw,
            ..
        } = readings;
        let Some(name) = name.strip_prefix("NVML_FI_DEV_") else {
            return Reading::NotSupported;
        };
        match name {
            "ECC_CURRENT" => readings.ecc.clone().map(u64::from),
            "ECC_PENDING" => readings.ecc_pending.clone().map(u64::from),
            "ECC_SBE_VOL_TOTAL" => readings.ecc_corrected.clone(),
            "ECC_DBE_VOL_TOTAL" => readings.ecc_uncorrected.clone(),
            "MEMORY_TEMP" => temperature(&readings.memory_temperature_c),
            "TOTAL_ENERGY_CONSUMPTION" | "ENERGY" => readings.energy_mj.clone(),
            "POWER_AVERAGE" => readings.power_mw.clone().map(u64::from),
            "POWER_INSTANT" => readings.power_instant_mw.clone().map(u64::from),
            "POWER_CURRENT_LIMIT" => readings.power_limit_mw.clone().map(u64::from),
            "POWER_REQUESTED_LIMIT" => readings.power_limit_requested_mw.clone().map(u64::from),
            "POWER_DEFAULT_LIMIT" => readings.power_limit_default_mw.clone().map(u64::from),
            "POWER_MIN_LIMIT" => power_limit_range_mw.clone().map(|range| u64::from(range.min)),
            "POWER_MAX_LIMIT" => power_limit_range_mw.clone().map(|range| u64::from(range.max)),
            "PCIE_REPLAY_COUNTER" => readings.pcie_replays.clone(),
            "REMAPPED_COR" => remapped_rows.clone().map(|rows| u64::from(rows.correctable)),
            "REMAPPED_UNC" => remapped_rows.clone().map(|rows| u64::from(rows.uncorrectable)),
            "REMAPPED_PENDING" => remapped_rows.clone().map(|rows| u64::from(rows.pending)),
            "REMAPPED_FAILURE" => remapped_rows.clone().map(|rows| u64::from(rows.failure)),
            "RETIRED_SBE" => retired_pages.clone().map(|pages| u64::from(pages.single_bit)),
            "RETIRED_DBE" => retired_pages.clone().map(|pages| u64::from(pages.double_bit)),
            "RETIRED_PENDING" => retired_pages.clone().map(|pages| u64::from(pages.pending)),
            "GET_GPU_RECOVERY_ACTION" => readings
                .recovery_action
                .clone()
                .map(|action| u64::from(action.number())),
            "NVLINK_LINK_COUNT" => readings.nvlinks_active.clone().map(u64::from),
            _ => {
                let given = self.fields.get(&format!("NVML_FI_DEV_{name}"));
                given.map_or(Reading::NotSupported, |&value| Reading::Value(value))
            }
        }
    }

    /// The links one by one, those that are up first; none for a card without. What the scenario doesn't say of a link is what
    /// a new one has: the speed of its architecture and no error.
    pub(crate) fn nvlinks(&self) -> Option<Vec<NvLink>> {
        let up = *self.readings().nvlinks_active.value()?;
        let architecture = self.card.architecture;
        let links = up.max(nvlink::made(architecture));
        let link = |index: u32| {
            let field = |name: &str| {
                self.fields
                    .get(&format!("NVML_FI_DEV_NVLINK_{name}_L{index}"))
                    .copied()
            };
            let count = |name: &str| match (field(name), architecture) {
                (Some(given), _) => Reading::Value(given),
                // Its links are other ones, which count otherwise.
                (None, Architecture::Blackwell) => Reading::NotSupported,
                (None, _) => Reading::Value(0),
            };
            if index >= up {
                return NvLink::new(index, false);
            }
            let speed = field("SPEED_MBPS").or_else(|| nvlink::speed_mbs(architecture));
            NvLink {
                speed_mbs: speed.map_or(Reading::NotSupported, Reading::Value),
                crc_flit: count("CRC_FLIT_ERROR_COUNT"),
                crc_data: count("CRC_DATA_ERROR_COUNT"),
                replays: count("REPLAY_ERROR_COUNT"),
                recoveries: count("RECOVERY_ERROR_COUNT"),
                ..NvLink::new(index, true)
            }
        };
        (links > 0).then(|| (0..links).map(link).collect())
    }

    /// A profiling figure: as in the scenario, and under a load in proportion to it.
    pub(crate) fn metric(&self, metric: u32) -> Reading<f64> {
        let Some(&given) = self.gpm.get(&metric) else {
            return Reading::NotSupported;
        };
        let busy = self.gpm.get(&1).copied().filter(|&busy| busy > 0.0);
        Reading::Value(match (self.load, busy) {
            (Some(percent), Some(busy)) => {
                let scaled = given * f64::from(percent) / busy;
                if metric < FIRST_RATE {
                    scaled.min(100.0)
                } else {
                    scaled
                }
            }
            _ => given,
        })
    }
}

/// NVML has no negative field of this kind.
fn temperature(reading: &Reading<i32>) -> Reading<u64> {
    match reading.clone().map(u64::try_from) {
        Reading::Value(Ok(value)) => Reading::Value(value),
        Reading::Value(Err(_)) => Reading::Failed("the temperature is below zero".to_owned()),
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(reason) => Reading::Failed(reason),
    }
}
