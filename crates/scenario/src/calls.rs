//! NVML's calls behind our readings: what can hang, and what takes time.

use std::collections::BTreeMap;
use std::time::Duration;

/// The call that gives each reading. One call can give several.
pub const READING_CALLS: &[(&str, &str)] = &[
    ("name", "nvmlDeviceGetName"),
    ("uuid", "nvmlDeviceGetUUID"),
    ("serial", "nvmlDeviceGetSerial"),
    ("board_part_number", "nvmlDeviceGetBoardPartNumber"),
    ("vbios", "nvmlDeviceGetVbiosVersion"),
    ("gsp_firmware", "nvmlDeviceGetGspFirmwareVersion"),
    ("minor", "nvmlDeviceGetMinorNumber"),
    ("compute_capability", "nvmlDeviceGetCudaComputeCapability"),
    ("cores", "nvmlDeviceGetNumGpuCores"),
    ("memory_bus_bits", "nvmlDeviceGetMemoryBusWidth"),
    ("numa_node", "nvmlDeviceGetNumaNodeId"),
    ("memory_total_bytes", "nvmlDeviceGetMemoryInfo_v2"),
    ("memory_used_bytes", "nvmlDeviceGetMemoryInfo_v2"),
    ("memory_free_bytes", "nvmlDeviceGetMemoryInfo_v2"),
    ("memory_reserved_bytes", "nvmlDeviceGetMemoryInfo_v2"),
    ("bar1_total_bytes", "nvmlDeviceGetBAR1MemoryInfo"),
    ("bar1_used_bytes", "nvmlDeviceGetBAR1MemoryInfo"),
    ("temperature_c", "nvmlDeviceGetTemperature"),
    ("memory_temperature_c", "nvmlDeviceGetFieldValues"),
    ("fan_percent", "nvmlDeviceGetFanSpeed"),
    ("power_mw", "nvmlDeviceGetPowerUsage"),
    ("power_instant_mw", "nvmlDeviceGetFieldValues"),
    ("power_limit_mw", "nvmlDeviceGetEnforcedPowerLimit"),
    ("power_limit_requested_mw", "nvmlDeviceGetPowerManagementLimit"),
    (
        "power_limit_default_mw",
        "nvmlDeviceGetPowerManagementDefaultLimit",
    ),
    (
        "power_limit_range_mw",
        "nvmlDeviceGetPowerManagementLimitConstraints",
    ),
    ("energy_mj", "nvmlDeviceGetTotalEnergyConsumption"),
    ("utilization_gpu_percent", "nvmlDeviceGetUtilizationRates"),
    ("utilization_memory_percent", "nvmlDeviceGetUtilizationRates"),
    ("clock_sm_mhz", "nvmlDeviceGetClockInfo"),
    ("clock_memory_mhz", "nvmlDeviceGetClockInfo"),
    ("clock_sm_max_mhz", "nvmlDeviceGetMaxClockInfo"),
    ("clock_memory_max_mhz", "nvmlDeviceGetMaxClockInfo"),
    ("clocks_event_reasons", "nvmlDeviceGetCurrentClocksEventReasons"),
    ("performance_state", "nvmlDeviceGetPerformanceState"),
    ("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
    ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
    ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth"),
    ("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
    ("pcie_replays", "nvmlDeviceGetPcieReplayCounter"),
    ("nvlinks_active", "nvmlDeviceGetNvLinkState"),
    ("fabric", "nvmlDeviceGetGpuFabricInfoV"),
    ("ecc", "nvmlDeviceGetEccMode"),
    ("ecc_pending", "nvmlDeviceGetEccMode"),
    ("ecc_corrected", "nvmlDeviceGetTotalEccErrors"),
    ("ecc_uncorrected", "nvmlDeviceGetTotalEccErrors"),
    ("remapped_rows", "nvmlDeviceGetRemappedRows"),
    ("retired_pages", "nvmlDeviceGetRetiredPages"),
    ("recovery_action", "nvmlDeviceGetFieldValues"),
    ("persistence", "nvmlDeviceGetPersistenceMode"),
    ("virtualization", "nvmlDeviceGetVirtualizationMode"),
    ("compute_mode", "nvmlDeviceGetComputeMode"),
    ("mig_mode", "nvmlDeviceGetMigMode"),
    ("mig_devices", "nvmlDeviceGetMigDeviceHandleByIndex"),
    ("processes", "nvmlDeviceGetComputeRunningProcesses"),
    ("xids", "nvmlEventSetWait_v2"),
];

/// Samples of a GPU's counters.
pub const FIELDS: &str = "nvmlDeviceGetFieldValues";
/// Profiling figures.
pub const GPM: &str = "nvmlGpmMetricsGet";
/// Errors of one link.
pub const NVLINK_ERRORS: &str = "nvmlDeviceGetNvLinkErrorCounter";
/// Waiting for events.
pub const EVENTS: &str = "nvmlEventSetWait_v2";
/// MIG on or off.
pub const MIG_MODE: &str = "nvmlDeviceSetMigMode";
/// Asking for profiles and their placements.
pub const MIG_PROFILES: &str = "nvmlDeviceGetGpuInstanceProfileInfoV";
/// Creating a GPU instance.
pub const MIG_CREATE: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";
/// Destroying a GPU instance.
pub const MIG_DESTROY: &str = "nvmlGpuInstanceDestroy";

/// Listing GPU instances.
pub const MIG_INSTANCES: &str = "nvmlDeviceGetGpuInstances";
/// Creating a compute instance.
pub const MIG_CREATE_COMPUTE: &str = "nvmlGpuInstanceCreateComputeInstance";
/// Destroying a compute instance.
pub const MIG_DESTROY_COMPUTE: &str = "nvmlComputeInstanceDestroy";

/// Counting GPUs.
pub const COUNT: &str = "nvmlDeviceGetCount_v2";
/// Finding a GPU, which starts it where nobody else uses it.
pub const HANDLE: &str = "nvmlDeviceGetHandleByIndex_v2";

const OTHERS: &[&str] = &[
    COUNT,
    HANDLE,
    GPM,
    NVLINK_ERRORS,
    MIG_MODE,
    MIG_PROFILES,
    MIG_CREATE,
    MIG_DESTROY,
    MIG_INSTANCES,
    MIG_CREATE_COMPUTE,
    MIG_DESTROY_COMPUTE,
];

/// Names of all calls that can hang or take time.
pub fn all() -> impl Iterator<Item = &'static str> {
    READING_CALLS
        .iter()
        .map(|(_, call)| *call)
        .chain(OTHERS.iter().copied())
}

/// The calls of one look at a GPU, each once, in order. Waiting for events is not among them.
pub(crate) fn of_inventory() -> impl Iterator<Item = &'static str> {
    let calls = READING_CALLS.iter().enumerate();
    calls
        .filter(|&(at, &(_, call))| {
            call != EVENTS && !READING_CALLS[..at].iter().any(|(_, before)| *before == call)
        })
        .map(|(_, (_, call))| *call)
}

/// The known call that is the same as this one in another version: `nvmlDeviceGetComputeRunningProcesses` for
/// `nvmlDeviceGetComputeRunningProcesses_v3`.
pub fn same_as(call: &str) -> Option<&'static str> {
    all()
        .find(|known| *known == call)
        .or_else(|| all().find(|known| without_version(known) == without_version(call)))
}

/// The name without `_v2` and the like, or the `V` that newer versioned calls end in.
fn without_version(call: &str) -> &str {
    let is_version = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    match call.rsplit_once("_v") {
        Some((name, rest)) if is_version(rest) => name,
        _ => call.strip_suffix('V').unwrap_or(call),
    }
}

/// True when `pattern` means `call`: the name itself, or its beginning and `*`.
pub(crate) fn matches(pattern: &str, call: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == call, |beginning| call.starts_with(beginning))
}

/// How long each call takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(pub(crate) BTreeMap<String, Duration>);

impl Latencies {
    /// How long these calls take, one after the other as in NVML.
    pub(crate) fn of<'a>(&self, calls: impl IntoIterator<Item = &'a str>) -> Duration {
        calls.into_iter().filter_map(|call| self.0.get(call)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_core::gpu::GpuReadings;

    #[test]
    fn every_reading_has_its_call() {
        let fields: Vec<_> = READING_CALLS.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, GpuReadings::FIELDS);
    }

    #[test]
    fn a_call_is_known_in_any_version() {
        assert_eq!(
            same_as("nvmlDeviceGetMemoryInfo"),
            Some("nvmlDeviceGetMemoryInfo_v2")
        );
        assert_eq!(same_as("nvmlEventSetWait"), Some("nvmlEventSetWait_v2"));
        assert_eq!(
            same_as("nvmlDeviceGetTemperatureV"),
            Some("nvmlDeviceGetTemperature")
        );
        assert_eq!(same_as("nvmlDeviceGetName"), Some("nvmlDeviceGetName"));
        assert_eq!(same_as("nvmlDeviceGetBrand"), None);
    }

    #[test]
    fn a_star_stands_for_any_rest() {
        assert!(matches("nvmlDeviceGetPower*", "nvmlDeviceGetPowerUsage"));
        assert!(matches("*", "nvmlDeviceGetName"));
        assert!(!matches("nvmlDeviceGetPower", "nvmlDeviceGetPowerUsage"));
    }
}
