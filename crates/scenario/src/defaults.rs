//! What a card says when the scenario doesn't: the rules of `docs/scenarios.md`, in one place.
//!
//! Only figures that follow from the catalogue are made up. Whatever doesn't is not supported, never 0.

use pitcrew_core::Reading;
use pitcrew_core::catalog::{Architecture, Card, Class};
use pitcrew_core::gpu::{
    ComputeMode, GpuReadings, MigMode, PowerRange, RecoveryAction, RemappedRows, RetiredPages, Virtualization,
};
use pitcrew_core::mig;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The first branch of drivers that says how a GPU is to be recovered.
const WITH_RECOVERY_ACTION: u32 = 570;

/// An idle, healthy card, with a driver of this branch.
pub(crate) fn readings(card: &Card, branch: u32) -> GpuReadings {
    let datacentre = card.class == Class::Datacentre;
    let ampere_or_later = card.compute_capability.major >= 8;
    let stacked = card.memory_type.starts_with("HBM");
    let mut readings = GpuReadings::none_supported();

    readings.name = Reading::Value(driver_name(card));
    readings.compute_capability = Reading::Value(card.compute_capability);
    readings.cores = Reading::Value(card.sm_count * cores_per_multiprocessor(card));

    let memory = u64::from(card.memory_gb) * GIB;
    readings.memory_total_bytes = Reading::Value(memory);
    readings.memory_used_bytes = Reading::Value(0);
    readings.memory_free_bytes = Reading::Value(memory);
    let bar1 = if card.class == Class::Consumer {
        256 * MIB
    } else {
        memory.next_power_of_two()
    };
    readings.bar1_total_bytes = Reading::Value(bar1);
    readings.bar1_used_bytes = Reading::Value(MIB);

    readings.temperature_c = Reading::Value(40);
    readings.memory_temperature_c = if stacked {
        Reading::Value(42)
    } else {
        Reading::NotSupported
    };
    readings.fan_percent = if datacentre {
        Reading::NotSupported
    } else {
        Reading::Value(30)
    };
    let limit = card.tdp_w * 1000;
    readings.power_mw = Reading::Value(limit / 10);
    readings.power_limit_mw = Reading::Value(limit);
    readings.power_limit_default_mw = Reading::Value(limit);
    readings.power_limit_range_mw = Reading::Value(PowerRange {
        min: limit / 2,
        max: limit,
    });
    readings.energy_mj = match card.architecture {
        // Energy counters came with Volta.
        Architecture::Maxwell | Architecture::Pascal => Reading::NotSupported,
        _ => Reading::Value(0),
    };

    readings.utilization_gpu_percent = Reading::Value(0);
    readings.utilization_memory_percent = Reading::Value(0);
    readings.clock_sm_mhz = Reading::Value(210);
    readings.clock_sm_max_mhz = Reading::Value(card.boost_mhz);
    readings.clocks_event_reasons = Reading::Value(1);
    readings.performance_state = Reading::Value(if datacentre { 0 } else { 8 });

    let (generation, width) = (card.pcie_gen, card.pcie_width);
    readings.pcie_generation = Reading::Value(generation);
    readings.pcie_generation_max = Reading::Value(generation);
    readings.pcie_width = Reading::Value(width);
    readings.pcie_width_max = Reading::Value(width);
    readings.pcie_replays = Reading::Value(0);

    if card.class != Class::Consumer {
        readings.ecc = Reading::Value(datacentre);
    }
    if datacentre {
        readings.ecc_corrected = Reading::Value(0);
        readings.ecc_uncorrected = Reading::Value(0);
    }
    if datacentre && ampere_or_later {
        readings.remapped_rows = Reading::Value(RemappedRows {
            correctable: 0,
            uncorrectable: 0,
            pending: false,
            failure: false,
        });
    } else if datacentre {
        readings.retired_pages = Reading::Value(RetiredPages {
            single_bit: 0,
            double_bit: 0,
            pending: false,
        });
    }
    if branch >= WITH_RECOVERY_ACTION {
        readings.recovery_action = Reading::Value(RecoveryAction::None);
    }

    readings.persistence = Reading::Value(true);
    readings.virtualization = Reading::Value(Virtualization::None);
    readings.compute_mode = Reading::Value(ComputeMode::Default);
    if mig::geometry(card).is_some() {
        readings.mig_mode = Reading::Value(MigMode {
            current: false,
            pending: false,
        });
        readings.mig_devices = Reading::Value(Vec::new());
    }
    readings.processes = Reading::Value(Vec::new());
    readings.xids = Reading::Value(Vec::new());
    readings
}

/// What follows from readings that were given, where it wasn't given itself.
pub(crate) fn follow(readings: &mut GpuReadings) {
    let GpuReadings {
        memory_total_bytes,
        memory_used_bytes,
        memory_free_bytes,
        memory_reserved_bytes,
        power_mw,
        power_instant_mw,
        power_limit_mw,
        power_limit_requested_mw,
        ecc,
        ecc_pending,
        ..
    } = readings;
    if memory_reserved_bytes.is_absent() {
        *memory_reserved_bytes = memory_total_bytes
            .clone()
            .zip(memory_used_bytes.clone().zip(memory_free_bytes.clone()))
            .map(|(total, (used, free))| total.saturating_sub(used).saturating_sub(free));
    }
    if power_instant_mw.is_absent() {
        *power_instant_mw = power_mw.clone();
    }
    if power_limit_requested_mw.is_absent() {
        *power_limit_requested_mw = power_limit_mw.clone();
    }
    if ecc_pending.is_absent() {
        *ecc_pending = ecc.clone();
    }
}

/// `NVIDIA` and the catalogue's name. Scenarios give the driver's own name, which no rule can guess.
fn driver_name(card: &Card) -> String {
    if card.name.starts_with("Tesla") {
        card.name.clone()
    } else {
        format!("NVIDIA {}", card.name)
    }
}

/// FP32 lanes of a multiprocessor, from NVIDIA's architecture papers.
fn cores_per_multiprocessor(card: &Card) -> u32 {
    let version = card.compute_capability;
    match (version.major, version.minor) {
        (6 | 8, 0) | (7, _) => 64,
        _ => 128,
    }
}
