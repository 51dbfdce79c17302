//! One GPU in full width: facts on the left, the last minutes on the right.

use std::fmt::Write as _;
use std::time::Duration;

use pitcrew_core::Reading;
use pitcrew_core::gpu::GpuReadings;
use ratatui::style::Style;
use ratatui::text::Line;

use super::bar::bar;
use super::charts::charts;
use super::figure::{celsius, held, memory, pair, percent, power, show, with};
use super::gpu::View;
use super::history::Kind;
use super::row::{Row, width as cells};

/// Lines of a card at least, without MIG and findings: title and facts.
pub(crate) const LEAST: usize = 9;
/// Column where labels begin, and where what they label does.
const LABEL: usize = 4;
const VALUE: usize = 12;

/// One fact of a GPU.
pub(crate) struct Fact {
    pub(crate) label: &'static str,
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// A card in `height` lines.
pub(crate) fn card(view: &View<'_>, interval: Duration, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![title(view, width)];
    let body = height.saturating_sub(1);
    let left = (width / 2).clamp(40, 52).min(width);
    let facts = facts_lines(view, left, body);
    let region = width.saturating_sub(left + 2);
    let curves = if region >= 16 {
        charts(view, interval, region, body)
    } else {
        Vec::new()
    };
    for at in 0..body {
        let mut row = Row::new();
        if let Some(line) = facts.get(at) {
            row.append(line.clone());
        }
        if let Some(line) = curves.get(at) {
            row.to(left + 2).append(line.clone());
        }
        lines.push(row.line());
    }
    lines
}

/// Index and name, a rule, the verdict.
pub(crate) fn title(view: &View<'_>, width: usize) -> Line<'static> {
    let verdict = view.health.verdict.to_string();
    let mut row = view.start(width.saturating_sub(cells(&verdict) + 3));
    let rule = width.saturating_sub(row.width() + cells(&verdict) + 2);
    row.push(" ", view.paint.plain())
        .push("─".repeat(rule), view.paint.dim())
        .push(" ", view.paint.plain())
        .push(verdict, view.verdict_style());
    row.line()
}

/// Three bars, then facts, as many as fit.
fn facts_lines(view: &View<'_>, width: usize, height: usize) -> Vec<Line<'static>> {
    let readings = &view.gpu.readings;
    let paint = view.paint;
    let meter = |label: &'static str, kind: Kind, figure: String, style: Style| {
        let (filled, rest) = bar(view.now(kind), width.saturating_sub(VALUE + 15));
        let mut row = Row::new();
        row.to(LABEL)
            .push(label, paint.dim())
            .to(VALUE)
            .push(filled, style)
            .push(rest, paint.dim())
            .right(&figure, width, paint.plain());
        row.line()
    };
    let mut lines = vec![
        meter(
            "busy",
            Kind::Busy,
            percent(&readings.utilization_gpu_percent),
            paint.busy(),
        ),
        meter("memory", Kind::Memory, memory(readings), paint.memory()),
        meter("power", Kind::Power, power(readings), paint.power()),
    ];
    for fact in facts(view) {
        let mut row = Row::new();
        row.to(LABEL)
            .push(fact.label, paint.dim())
            .to(VALUE)
            .clipped(&fact.text, width, fact.style);
        lines.push(row.line());
    }
    lines.truncate(height);
    lines
}

/// What a card says in words, most important first.
pub(crate) fn facts(view: &View<'_>) -> Vec<Fact> {
    let readings = &view.gpu.readings;
    let plain = view.paint.plain();
    let fact = |label, text| Fact {
        label,
        text,
        style: plain,
    };
    let mut facts = vec![
        fact("temp", temperature(readings)),
        fact("clocks", clocks(readings)),
        Fact {
            label: "held by",
            text: held(readings),
            style: view.held_style(),
        },
        fact("link", link(readings)),
        Fact {
            label: "ecc",
            text: ecc(readings),
            style: marked(view, &readings.ecc_uncorrected, |errors| *errors > 0),
        },
        Fact {
            label: "rows",
            text: rows(readings),
            style: marked(view, &readings.remapped_rows, |rows| rows.pending || rows.failure),
        },
        Fact {
            label: "xids",
            text: xids(readings),
            style: marked(view, &readings.xids, |xids| !xids.is_empty()),
        },
    ];
    facts.push(fact(
        "state",
        format!(
            "{}, persistence {}",
            with(&readings.performance_state, |state| format!("P{state}")),
            with(&readings.persistence, |on| on_off(*on).to_owned())
        ),
    ));
    facts.push(fact("uuid", show(&readings.uuid)));
    facts.push(fact("pci", view.gpu.pci.address.to_string()));
    facts.push(fact("serial", show(&readings.serial)));
    facts.push(fact("vbios", show(&readings.vbios)));
    facts
}

fn marked<T>(view: &View<'_>, reading: &Reading<T>, is_bad: impl Fn(&T) -> bool) -> Style {
    if reading.value().is_some_and(is_bad) {
        view.paint.warn()
    } else {
        view.paint.plain()
    }
}

pub(crate) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// `51 C, memory 53 C, fan 30 %`, without what there isn't.
fn temperature(readings: &GpuReadings) -> String {
    let mut parts = vec![celsius(&readings.temperature_c)];
    if readings.memory_temperature_c != Reading::NotSupported {
        parts.push(format!("memory {}", celsius(&readings.memory_temperature_c)));
    }
    if readings.fan_percent != Reading::NotSupported {
        parts.push(format!("fan {}", percent(&readings.fan_percent)));
    }
    parts.join(", ")
}

/// `1980/1980 MHz, memory 2619 MHz`.
fn clocks(readings: &GpuReadings) -> String {
    let sm = pair(
        &readings.clock_sm_mhz,
        &readings.clock_sm_max_mhz,
        ToString::to_string,
        "MHz",
    );
    let memory = with(&readings.clock_memory_mhz, |mhz| format!("{mhz} MHz"));
    format!("{sm}, memory {memory}")
}

/// `PCIe 5 x16, 18 NVLinks`.
fn link(readings: &GpuReadings) -> String {
    let generation = show(&readings.pcie_generation);
    let width = with(&readings.pcie_width, |width| format!("x{width}"));
    let mut text = match (generation.as_str(), width.as_str()) {
        ("-", "-") => "PCIe -".to_owned(),
        ("?", "?") => "PCIe ?".to_owned(),
        _ => format!("PCIe {generation} {width}"),
    };
    if let (Some(now), Some(most)) = (readings.pcie_width.value(), readings.pcie_width_max.value())
        && now < most
    {
        let _ = write!(text, " of x{most}");
    }
    if readings.pcie_replays.value().is_some_and(|&replays| replays > 0) {
        let _ = write!(text, ", {} replays", show(&readings.pcie_replays));
    }
    match &readings.nvlinks_active {
        Reading::Value(1) => text + ", 1 NVLink",
        Reading::NotSupported => text,
        links => format!("{text}, {} NVLinks", show(links)),
    }
}

/// `0 corrected, 0 uncorrected`.
fn ecc(readings: &GpuReadings) -> String {
    match &readings.ecc {
        Reading::Value(false) if readings.ecc_pending == Reading::Value(true) => {
            "off, on after a reset".to_owned()
        }
        Reading::Value(false) => "off".to_owned(),
        Reading::Value(true) => {
            let mut text = format!(
                "{} corrected, {} uncorrected",
                show(&readings.ecc_corrected),
                show(&readings.ecc_uncorrected)
            );
            if readings.ecc_pending == Reading::Value(false) {
                text += ", off after a reset";
            }
            text
        }
        absent => show(absent),
    }
}

/// `0 remapped`.
fn rows(readings: &GpuReadings) -> String {
    with(&readings.remapped_rows, |rows| {
        let mut text = format!(
            "{} remapped",
            u64::from(rows.correctable) + u64::from(rows.uncorrectable)
        );
        if rows.pending {
            text += ", one waits for a reset";
        }
        if rows.failure {
            text += ", no spare row left";
        }
        text
    })
}

/// The last XIDs, or `none`.
fn xids(readings: &GpuReadings) -> String {
    with(&readings.xids, |xids| {
        if xids.is_empty() {
            return "none".to_owned();
        }
        let numbers: Vec<String> = xids.iter().rev().take(8).map(ToString::to_string).collect();
        numbers.join(", ")
    })
}
