//! GPUs as a table, and below it what is wrong with them.

use std::fmt::Write as _;

use pitcrew_core::Reading;
use pitcrew_core::gpu::{GpuReadings, MigDevice};
use pitcrew_core::health::Finding;

use super::report::{GpuReport, Report, Source};
use super::table::{Column, render};

/// From this width on a table shows UUIDs in full.
const WIDE: usize = 160;
/// How much of a UUID tells GPUs of one machine apart: `GPU-` and eight digits.
const SHORT_UUID: usize = 12;

/// The table with a heading, and the findings below it.
pub(crate) fn text(report: &Report<'_>, width: Option<usize>) -> String {
    let mut text = heading(report);
    if report.gpus.is_empty() {
        text += "no GPUs\n";
        return text;
    }
    text += &render(columns(report, width), width);
    for (finding, gpus) in findings(report) {
        let _ = write!(
            text,
            "\n{}: {}\n  do: {}\n",
            which(&gpus),
            finding.what,
            finding.advice
        );
    }
    text
}

/// Every finding once, with the GPUs that have it.
fn findings<'a>(report: &'a Report<'_>) -> Vec<(&'a Finding, Vec<u32>)> {
    let mut groups: Vec<(&Finding, Vec<u32>)> = Vec::new();
    for GpuReport { gpu, health, .. } in &report.gpus {
        for finding in &health.findings {
            match groups.iter_mut().find(|(known, _)| *known == finding) {
                Some((_, gpus)) => gpus.push(gpu.index),
                None => groups.push((finding, vec![gpu.index])),
            }
        }
    }
    groups
}

fn which(gpus: &[u32]) -> String {
    let numbers: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    format!(
        "{} {}",
        if gpus.len() == 1 { "GPU" } else { "GPUs" },
        numbers.join(", ")
    )
}

/// Says first whether any of this is real.
fn heading(report: &Report<'_>) -> String {
    let source = match report.source {
        Source::Scenario { scenario, file: None } => format!("Imaginary GPUs: scenario `{scenario}`"),
        Source::Scenario {
            scenario,
            file: Some(file),
        } => {
            format!("Imaginary GPUs: scenario `{scenario}` from {file}")
        }
        Source::Driver { .. } => "GPUs of this machine".to_owned(),
        Source::Pci { .. } => "GPUs on this machine's PCI bus".to_owned(),
    };
    let driver = report.driver.readings;
    let mut facts = vec![format!("driver {}", show(driver.version.as_ref()))];
    if let Some(cuda) = driver.cuda.value() {
        facts.push(format!("CUDA {cuda}"));
    }
    if let Some(open) = driver.open_kernel_modules.value() {
        facts.push(
            if *open {
                "open kernel modules"
            } else {
                "proprietary kernel modules"
            }
            .to_owned(),
        );
    }
    format!("{source}\n{}\n\n", facts.join(", "))
}

fn columns(report: &Report<'_>, width: Option<usize>) -> Vec<Column> {
    let cells = |cell: &dyn Fn(&GpuReport<'_>) -> String| report.gpus.iter().map(cell).collect::<Vec<_>>();
    let readings = |cell: &dyn Fn(&GpuReadings) -> String| cells(&|report| cell(&report.gpu.readings));
    let is_wide = width.is_none_or(|width| width >= WIDE);
    vec![
        Column::new("GPU", cells(&|report| report.gpu.index.to_string())).right(),
        Column::new("NAME", cells(&name)),
        Column::new(
            "CLASS",
            cells(&|report| report.class.map_or("?".to_owned(), |class| class.to_string())),
        )
        .expendable(3),
        Column::new(
            "UUID",
            readings(&|readings| show(readings.uuid.as_ref().map(|uuid| shorten(uuid, is_wide)))),
        )
        .expendable(1),
        Column::new("PCI", cells(&|report| report.gpu.pci.address.to_string())).expendable(2),
        Column::new("MEMORY", readings(&memory)).right(),
        Column::new(
            "TEMP",
            readings(&|readings| show(readings.temperature_c.as_ref().map(|c| format!("{c} C")))),
        )
        .right(),
        Column::new("POWER", readings(&power)).right(),
        Column::new(
            "DRIVER",
            cells(&|_| show(report.driver.readings.version.as_ref())),
        )
        .expendable(4),
        Column::new("MIG", readings(&mig)),
        Column::new("HEALTH", cells(&|report| report.health.verdict.to_string())),
    ]
}

/// A value, `?` for one that could not be read, `-` for one that there isn't.
fn show<T: ToString>(reading: Reading<T>) -> String {
    match reading {
        Reading::Value(value) => value.to_string(),
        Reading::Failed(_) => "?".to_owned(),
        Reading::NotSupported => "-".to_owned(),
    }
}

/// The driver's name; where it said none, that of the card with this PCI id, marked as not from the driver.
fn name(report: &GpuReport<'_>) -> String {
    let name = &report.gpu.readings.name;
    match (name, report.card) {
        (Reading::Failed(_), Some(card)) => format!("? ({card})"),
        _ => show(name.as_ref()),
    }
}

fn shorten(uuid: &str, is_wide: bool) -> String {
    if is_wide || uuid.chars().count() <= SHORT_UUID {
        return uuid.to_owned();
    }
    uuid.chars().take(SHORT_UUID).chain(['…']).collect()
}

/// Two readings of one unit, such as used and total; one sign where neither is there.
fn pair(first: Reading<String>, second: Reading<String>, unit: &str) -> String {
    match (&first, &second) {
        (Reading::Value(_), _) | (_, Reading::Value(_)) => format!("{}/{} {unit}", show(first), show(second)),
        (Reading::NotSupported, Reading::NotSupported) => "-".to_owned(),
        (Reading::Failed(_), _) | (_, Reading::Failed(_)) => "?".to_owned(),
    }
}

fn memory(readings: &GpuReadings) -> String {
    let used = readings.memory_used_bytes.as_ref().map(|&bytes| gib(bytes));
    pair(
        used,
        readings.memory_total_bytes.as_ref().map(|&bytes| gib(bytes)),
        "GiB",
    )
}

/// GiB with one decimal, rounded to the nearest, in whole numbers all the way.
fn gib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + (1 << 29)) >> 30;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn power(readings: &GpuReadings) -> String {
    let watts = |milliwatts: &u32| (milliwatts.saturating_add(500) / 1000).to_string();
    pair(
        readings.power_mw.as_ref().map(watts),
        readings.power_limit_mw.as_ref().map(watts),
        "W",
    )
}

fn mig(readings: &GpuReadings) -> String {
    let mode = match &readings.mig_mode {
        Reading::Value(mode) => mode,
        absent => return show(absent.as_ref().map(|_| String::new())),
    };
    let mut text = match (mode.current, mode.pending) {
        (false, false) => "off",
        (true, true) => "on",
        (false, true) => "off (on after a reset)",
        (true, false) => "on (off after a reset)",
    }
    .to_owned();
    match &readings.mig_devices {
        Reading::Value(devices) if !devices.is_empty() => {
            text += ": ";
            text += &summary(devices);
        }
        Reading::Value(_) if mode.current => text += ": none",
        Reading::Failed(_) if mode.current => text += ": ?",
        Reading::Value(_) | Reading::Failed(_) | Reading::NotSupported => {}
    }
    text
}

/// `2x3g.40gb, 1x1g.10gb`: equal profiles in a row are counted.
fn summary(devices: &[MigDevice]) -> String {
    let groups = devices.chunk_by(|a, b| a.profile == b.profile);
    let groups = groups.map(|group| {
        group
            .first()
            .map(|first| format!("{}x{}", group.len(), first.profile))
    });
    groups.flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_and_not_cut_off() {
        assert_eq!(gib(0), "0.0");
        assert_eq!(gib(12 << 30), "12.0");
        assert_eq!(gib((12 << 30) - 1), "12.0");
        assert_eq!(gib(u64::MAX), "17179869184.0");
    }

    #[test]
    fn half_a_pair_is_shown_and_none_is_one_sign() {
        let (value, failed) = (
            Reading::Value("1.0".to_owned()),
            Reading::Failed("lost".to_owned()),
        );
        assert_eq!(pair(value.clone(), failed.clone(), "GiB"), "1.0/? GiB");
        assert_eq!(pair(Reading::NotSupported, value, "GiB"), "-/1.0 GiB");
        assert_eq!(pair(Reading::NotSupported, failed, "GiB"), "?");
        assert_eq!(pair(Reading::NotSupported, Reading::NotSupported, "GiB"), "-");
    }
}
