//! One GPU on the whole screen: everything that was read of it.

use std::fmt::Write as _;

use pitcrew_core::gpu::{ComputeMode, GpuReadings, Virtualization};
use ratatui::text::Line;

use super::card::{card, facts, on_off};
use super::figure::{gib, pair, show, size, watts, with};
use super::gpu::{View, finding_lines};
use super::process::table;
use super::row::{Row, wrap};
use super::state::State;

/// All lines of the details; the frame shows those that are scrolled to.
pub(crate) fn lines(state: &State, width: usize, height: usize) -> Vec<Line<'static>> {
    let at = state.selected();
    let Some(gpu) = state.selected_gpu() else {
        return vec![Line::raw("  there is no GPU any more; Esc goes back")];
    };
    let view = View::new(state, at, gpu);
    let paint = view.paint;
    let mut lines = card(&view, state.settings.interval, width, (height / 2).clamp(9, 22));
    for finding in &view.health.findings {
        lines.extend(finding_lines(finding, "", view.verdict_style(), paint, width));
    }
    lines.extend(super::mig::tree(gpu, paint, width));
    lines.push(Line::default());
    // What the card above says already is not said again.
    let said = facts(&view).len() + 3;
    let shown_above = ((height / 2).clamp(9, 22) - 1).min(said).saturating_sub(3);
    let mut rest: Vec<(&str, String)> = facts(&view)
        .into_iter()
        .skip(shown_above)
        .map(|fact| (fact.label, fact.text))
        .collect();
    rest.extend(more(&gpu.readings));
    lines.extend(columns(&rest, paint, width));
    let unread = gpu.readings.unread();
    if !unread.is_empty() {
        lines.push(Line::default());
        let names: Vec<&str> = unread.iter().map(|unread| unread.field).collect();
        let reason = unread.first().map_or("", |unread| unread.reason.as_str());
        let text = format!(
            "? {} values could not be read ({reason}): {}",
            unread.len(),
            names.join(", ")
        );
        for words in wrap_indented(&text, width) {
            lines.push(Line::styled(words, paint.warn()));
        }
    }
    lines.push(Line::default());
    let mut processes = state.processes();
    processes.retain(|process| process.gpu == gpu.index);
    lines.extend(table(state, &processes, width, None));
    lines
}

fn wrap_indented(text: &str, width: usize) -> Vec<String> {
    wrap(text, width.saturating_sub(6))
        .into_iter()
        .enumerate()
        .map(|(at, line)| format!("{}{line}", if at == 0 { "    " } else { "      " }))
        .collect()
}

/// Facts in as many columns as there is room for, read downwards.
fn columns(facts: &[(&str, String)], paint: super::Paint, width: usize) -> Vec<Line<'static>> {
    let count = (width / 60).clamp(1, 3);
    let column = width / count;
    let rows = facts.len().div_ceil(count);
    let line = |at: usize| {
        let mut row = Row::new();
        for (number, (label, text)) in facts.iter().skip(at).step_by(rows).enumerate() {
            let from = number * column;
            row.to(from + 4)
                .push((*label).to_owned(), paint.dim())
                .to(from + 20)
                .clipped(text, from + column - 1, paint.plain());
        }
        row.line()
    };
    (0..rows).map(line).collect()
}

/// What a card doesn't say.
fn more(readings: &GpuReadings) -> Vec<(&'static str, String)> {
    let compute = with(&readings.compute_mode, |mode| {
        match mode {
            ComputeMode::Default => "any number of programs",
            ComputeMode::Prohibited => "no programs",
            ComputeMode::ExclusiveProcess => "one process",
        }
        .to_owned()
    });
    let virtualization = with(&readings.virtualization, |how| {
        match how {
            Virtualization::None => "bare metal",
            Virtualization::Passthrough => "passed through to this machine",
            Virtualization::Vgpu => "vGPU",
            Virtualization::HostVgpu => "host of vGPUs",
            Virtualization::HostVsga => "host of vGPUs (SR-IOV)",
        }
        .to_owned()
    });
    let mig = with(&readings.mig_mode, |mode| {
        if mode.current == mode.pending {
            on_off(mode.current).to_owned()
        } else {
            format!("{}, {} after a reset", on_off(mode.current), on_off(mode.pending))
        }
    });
    vec![
        ("compute cap.", show(&readings.compute_capability)),
        ("cores", show(&readings.cores)),
        ("compute mode", compute),
        ("virtualization", virtualization),
        ("MIG", mig),
        (
            "BAR1",
            pair(
                &readings.bar1_used_bytes,
                &readings.bar1_total_bytes,
                |bytes| gib(*bytes),
                "GiB",
            ),
        ),
        (
            "memory bus",
            with(&readings.memory_bus_bits, |bits| format!("{bits} bits")),
        ),
        (
            "memory busy",
            with(&readings.utilization_memory_percent, |percent| {
                format!("{percent} %")
            }),
        ),
        (
            "memory reserved",
            with(&readings.memory_reserved_bytes, |bytes| size(*bytes)),
        ),
        (
            "power now",
            with(&readings.power_instant_mw, |milliwatts| {
                format!("{} W", watts(*milliwatts))
            }),
        ),
        ("power limit", power_limit(readings)),
        (
            "power range",
            with(&readings.power_limit_range_mw, |range| {
                format!("{} to {} W", watts(range.min), watts(range.max))
            }),
        ),
        (
            "energy",
            with(&readings.energy_mj, |millijoules| {
                format!("{} kJ since the driver was loaded", millijoules / 1_000_000)
            }),
        ),
        ("PCIe at best", best_link(readings)),
        ("fabric", fabric(readings)),
        ("recovery", show(&readings.recovery_action)),
        ("retired pages", retired_pages(readings)),
        ("GSP firmware", show(&readings.gsp_firmware)),
        ("replays", show(&readings.pcie_replays)),
        ("part number", show(&readings.board_part_number)),
        (
            "device node",
            with(&readings.minor, |minor| format!("/dev/nvidia{minor}")),
        ),
        ("NUMA node", show(&readings.numa_node)),
    ]
}

/// `700 W asked for, 700 W by default`.
fn power_limit(readings: &GpuReadings) -> String {
    let (requested, default) = (
        &readings.power_limit_requested_mw,
        &readings.power_limit_default_mw,
    );
    if requested.is_absent() && show(requested) == show(default) {
        return show(requested);
    }
    let words = |milliwatts: &u32| format!("{} W", watts(*milliwatts));
    format!(
        "{} asked for, {} by default",
        with(requested, words),
        with(default, words)
    )
}

/// `registered, clique 0`.
fn fabric(readings: &GpuReadings) -> String {
    with(&readings.fabric, |fabric| {
        let mut text = match &fabric.status {
            _ if fabric.is_registered() => "registered".to_owned(),
            Some(status) => format!("{}: {status}", fabric.state),
            None => fabric.state.to_string(),
        };
        if let Some(clique) = fabric.clique {
            let _ = write!(text, ", clique {clique}");
        }
        text
    })
}

/// `2 single-bit, 1 double-bit`.
fn retired_pages(readings: &GpuReadings) -> String {
    with(&readings.retired_pages, |pages| {
        let mut text = format!("{} single-bit, {} double-bit", pages.single_bit, pages.double_bit);
        if pages.pending {
            text += ", more after a reset";
        }
        text
    })
}

fn best_link(readings: &GpuReadings) -> String {
    let generation = show(&readings.pcie_generation_max);
    let width = with(&readings.pcie_width_max, |width| format!("x{width}"));
    if generation == width {
        return width;
    }
    format!("PCIe {generation} {width}")
}
