//! Everything that is read of one GPU.

use pitcrew_core::Reading;
use pitcrew_core::gpu::GpuReadings;

use crate::code::{Answer, Code, reading};
use crate::device::Device;
use crate::fields;

/// What is said of a GPU that has fallen off the bus.
pub(crate) const LOST: &str = "GPU is lost";

/// Takes readings, and notices when the GPU is lost in the middle of it.
struct Reader {
    is_lost: bool,
}

impl Reader {
    fn take<T>(&mut self, answer: Answer<T>) -> Reading<T> {
        self.is_lost |= matches!(answer, Err(Code::GPU_IS_LOST));
        reading(answer)
    }
}

/// Reads everything. Of a lost GPU nothing is told, not even what the driver still remembers: half a GPU would be
/// taken for a working one.
///
/// `xids` are those that were heard of; `None` where nobody listens.
pub(crate) fn read(device: Device<'_>, xids: impl FnOnce(&str) -> Option<Vec<u32>>) -> GpuReadings {
    let mut reader = Reader { is_lost: false };
    let mut r = GpuReadings::none_supported();
    r.name = reader.take(device.name());
    r.uuid = reader.take(device.uuid());
    r.serial = reader.take(device.serial());
    r.board_part_number = reader.take(device.board_part_number());
    r.vbios = reader.take(device.vbios());
    r.gsp_firmware = reader.take(device.gsp_firmware());
    r.minor = reader.take(device.minor());
    r.compute_capability = reader.take(device.compute_capability());
    r.cores = reader.take(device.cores());
    r.memory_bus_bits = reader.take(device.memory_bus_bits());
    r.numa_node = reader.take(device.numa_node());

    let memory = reader.take(device.memory());
    r.memory_total_bytes = memory.as_ref().map(|memory| memory.total);
    r.memory_used_bytes = memory.as_ref().map(|memory| memory.used);
    r.memory_free_bytes = memory.as_ref().map(|memory| memory.free);
    r.memory_reserved_bytes = match memory.map(|memory| memory.reserved) {
        Reading::Value(reserved) => reserved.map_or(Reading::NotSupported, Reading::Value),
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(reason) => Reading::Failed(reason),
    };
    let bar1 = reader.take(device.bar1());
    r.bar1_total_bytes = bar1.as_ref().map(|(total, _)| *total);
    r.bar1_used_bytes = bar1.map(|(_, used)| used);

    r.temperature_c = reader.take(device.temperature());
    match fields::of_inventory(device) {
        Ok(of_fields) => {
            r.memory_temperature_c = of_fields.memory_temperature_c;
            r.power_instant_mw = of_fields.power_instant_mw;
            r.recovery_action = of_fields.recovery_action;
        }
        Err(code) => {
            r.memory_temperature_c = reader.take(Err(code));
            r.power_instant_mw = reader.take(Err(code));
            r.recovery_action = reader.take(Err(code));
        }
    }
    r.fan_percent = reader.take(device.fan_percent());
    r.power_mw = reader.take(device.power_mw());
    r.power_limit_mw = reader.take(device.power_limit_mw());
    r.power_limit_requested_mw = reader.take(device.power_limit_requested_mw());
    r.power_limit_default_mw = reader.take(device.power_limit_default_mw());
    r.power_limit_range_mw = reader.take(device.power_limit_range_mw());
    r.energy_mj = reader.take(device.energy_mj());

    let utilization = reader.take(device.utilization());
    r.utilization_gpu_percent = utilization.as_ref().map(|(gpu, _)| *gpu);
    r.utilization_memory_percent = utilization.map(|(_, memory)| memory);
    r.clock_sm_mhz = reader.take(device.clock_sm_mhz());
    r.clock_memory_mhz = reader.take(device.clock_memory_mhz());
    r.clock_sm_max_mhz = reader.take(device.clock_sm_max_mhz());
    r.clock_memory_max_mhz = reader.take(device.clock_memory_max_mhz());
    r.clocks_event_reasons = reader.take(device.clocks_event_reasons());
    r.performance_state = reader.take(device.performance_state());

    r.pcie_generation = reader.take(device.pcie_generation());
    r.pcie_generation_max = reader.take(device.pcie_generation_max());
    r.pcie_width = reader.take(device.pcie_width());
    r.pcie_width_max = reader.take(device.pcie_width_max());
    r.pcie_replays = reader.take(device.pcie_replays());
    let nvlinks = device.nvlinks();
    r.nvlinks_active = reader.take(nvlinks.map(|up| u32::try_from(up.len()).unwrap_or(u32::MAX)));
    r.fabric = reader.take(device.fabric());

    let ecc = reader.take(device.ecc());
    r.ecc = ecc.as_ref().map(|(current, _)| *current);
    r.ecc_pending = ecc.map(|(_, pending)| pending);
    r.ecc_corrected = reader.take(device.ecc_errors(true));
    r.ecc_uncorrected = reader.take(device.ecc_errors(false));
    r.remapped_rows = reader.take(device.remapped_rows());
    r.retired_pages = reader.take(device.retired_pages());

    r.persistence = reader.take(device.persistence());
    r.virtualization = reader.take(device.virtualization());
    r.compute_mode = reader.take(device.compute_mode());
    r.mig_mode = reader.take(device.mig_mode());
    r.mig_devices = match &r.mig_mode {
        Reading::Value(mode) => device.read_mig_devices(*mode),
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(reason) => Reading::Failed(reason.clone()),
    };
    r.processes = device.processes();
    if let Some(heard) = r.uuid.value().and_then(|uuid| xids(uuid)) {
        r.xids = Reading::Value(heard);
    }
    if r.mig_devices.failure().is_some() || r.processes.failure().is_some() {
        // These two keep words alone; whether the GPU was lost meanwhile is told by a call that needs it.
        let _: Reading<i32> = reader.take(device.temperature());
    }
    if reader.is_lost {
        return GpuReadings::all_failed(LOST);
    }
    r
}
