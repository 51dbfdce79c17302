//! What is around the GPU: heat, power, slot, others who use it. And why clocks were where they were.

use super::Found;
use crate::clocks::{Hold, bits};
use crate::proof::{DeviceEvidence, Phase, ReasonCode, Sample, Verdict};

/// The clocks of applications, or of all GPUs of a group.
const CLOCKS_SET: u64 = 0x2 | 0x10;
const HW_SLOWDOWN: u64 = 0x8;
const SW_THERMAL: u64 = 0x20;
const HW_THERMAL: u64 = 0x40;
const POWER_BRAKE: u64 = 0x80;

/// Samples that must say so: a single one can be the last moment of what was before.
const SAMPLES: usize = 2;

pub(super) fn of_device(device: &DeviceEvidence, found: &mut Found) {
    slow_down(device, found);
    power_limit(device, found);
    link(device, found);
    if device.is_shared() {
        let text = format!(
            "{} other processes used it, so its figures are not judged",
            device.processes.len()
        );
        found.add(Verdict::Warn, ReasonCode::Shared, text);
    }
}

/// Samples taken while something ran.
fn loaded(device: &DeviceEvidence) -> impl Iterator<Item = &Sample> {
    device.samples.iter().filter(|sample| {
        device
            .phases
            .iter()
            .any(|phase| phase.outcome.has_results() && phase.worked_at(sample.at_s))
    })
}

fn with(samples: &[&Sample], bits: u64) -> usize {
    samples
        .iter()
        .filter(|sample| sample.reasons.is_some_and(|reasons| reasons & bits != 0))
        .count()
}

fn slow_down(device: &DeviceEvidence, found: &mut Found) {
    let samples: Vec<&Sample> = loaded(device).collect();
    let hottest = samples
        .iter()
        .filter_map(|sample| sample.temperature_c)
        .max_by(f64::total_cmp);
    let at = hottest.map_or_else(String::new, |hottest| format!(", at up to {hottest:.0} °C"));
    let told = |count: usize| format!("in {count} of {} samples under load{at}", samples.len());
    let (thermal, brake) = (with(&samples, HW_THERMAL), with(&samples, POWER_BRAKE));
    if thermal >= SAMPLES {
        let text = format!("the card slowed itself down from heat {}", told(thermal));
        found.add(Verdict::FailEnv, ReasonCode::Thermal, text);
    }
    if brake >= SAMPLES {
        let text = format!("the power supply told the card to slow down {}", told(brake));
        found.add(Verdict::FailEnv, ReasonCode::PowerBrake, text);
    }
    let slowdown = with(&samples, HW_SLOWDOWN);
    if slowdown >= SAMPLES && thermal < SAMPLES && brake < SAMPLES {
        let text = format!(
            "the card slowed itself down, from heat or for lack of power, {}",
            told(slowdown)
        );
        found.add(Verdict::FailEnv, ReasonCode::Thermal, text);
    }
    let software = with(&samples, SW_THERMAL);
    if software >= SAMPLES && thermal < SAMPLES {
        let text = format!("the driver slowed the card down from heat {}", told(software));
        found.add(Verdict::Warn, ReasonCode::Thermal, text);
    }
}

fn power_limit(device: &DeviceEvidence, found: &mut Found) {
    if let (Some(limit), Some(usual)) = (device.device.power_limit_w, device.device.power_limit_default_w)
        && limit < usual * 0.98
    {
        let text = format!("the power limit is {limit:.0} W, and {usual:.0} W is usual for the card");
        found.add(Verdict::Warn, ReasonCode::PowerLimit, text);
    }
}

/// The link while it was used: an idle one goes down by itself.
fn link(device: &DeviceEvidence, found: &mut Found) {
    use crate::proof::PhaseKind::{DeviceToHost, HostBothWays, HostToDevice};
    if device.device.mig.is_some() {
        return;
    }
    let copies = |phase: &&Phase| {
        matches!(phase.kind, HostToDevice | DeviceToHost | HostBothWays) && phase.outcome.has_results()
    };
    let during: Vec<&Sample> = (device.phases.iter().filter(copies))
        .flat_map(|phase| {
            device
                .samples
                .iter()
                .filter(|sample| phase.worked_at(sample.at_s))
        })
        .collect();
    let best = |of: fn(&Sample) -> Option<u32>| during.iter().filter_map(|sample| of(sample)).max();
    let width = (best(|sample| sample.pcie_width), device.device.pcie_width_max);
    let generation = (
        best(|sample| sample.pcie_generation),
        device.device.pcie_generation_max,
    );
    let at = device
        .device
        .pci_address
        .as_deref()
        .unwrap_or("an unknown address");
    if let (Some(now), Some(most)) = width
        && now < most
    {
        let text = format!("PCIe at {at} has {now} of {most} lanes");
        found.add(Verdict::Warn, ReasonCode::PcieLink, text);
    }
    if let (Some(now), Some(most)) = generation
        && now < most
    {
        let text = format!("PCIe at {at} runs at generation {now} of {most}");
        found.add(Verdict::Warn, ReasonCode::PcieLink, text);
    }
}

/// Why the clocks were low in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockReason {
    /// Heat or the power supply: told as a finding of its own.
    Brake,
    /// The power limit, as the card is meant to work.
    PowerLimit,
    /// Somebody set the clocks.
    Set,
    /// No reason was given.
    None,
    /// Nobody looked.
    Unknown,
}

pub(super) fn clock_reason(device: &DeviceEvidence, phase: &Phase) -> ClockReason {
    let samples: Vec<&Sample> = device
        .samples
        .iter()
        .filter(|sample| phase.worked_at(sample.at_s))
        .collect();
    // A third of the time is enough to be seen in a median.
    let often = |bits| with(&samples, bits) * 3 >= samples.len().max(1);
    if often(bits(Hold::Brake)) {
        ClockReason::Brake
    } else if often(bits(Hold::Normal)) {
        ClockReason::PowerLimit
    } else if often(CLOCKS_SET) {
        ClockReason::Set
    } else if samples.iter().all(|sample| sample.reasons.is_none()) {
        ClockReason::Unknown
    } else {
        ClockReason::None
    }
}
