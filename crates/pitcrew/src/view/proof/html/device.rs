//! The part of the page that one GPU has.

use std::fmt::Write as _;

use pitcrew_core::proof::{Figure, PhaseKind, Report};

use super::super::{bytes, count, first_figure, most, percent, short, totals, verdict_of};
use super::{bars, chip, escaped, nvlinks, sm_map, tables, timeline};

/// Most GPUs whose parts are all open.
const OPEN: usize = 2;

/// Of many GPUs only those are open that failed; a link to one opens it.
pub(super) fn section(report: &Report, index: usize) -> String {
    let evidence = &report.evidence.devices[index];
    let device = &evidence.device;
    let verdict = verdict_of(report, index);
    let title = format!(
        "<h2><span class=\"where\">{}</span> {} {}</h2>",
        escaped(&device.title()),
        escaped(&device.name),
        chip(verdict),
    );
    let body = body(report, index);
    if report.evidence.devices.len() <= OPEN {
        return format!("<section class=\"gpu\" id=\"gpu-{index}\">\n{title}\n{body}</section>\n");
    }
    let open = if verdict.is_failure() { " open" } else { "" };
    format!(
        "<section class=\"gpu\">\n<details class=\"folded\"{open}><summary>{title}</summary>\n<div id=\"gpu-{index}\">\n{body}</div></details>\n</section>\n"
    )
}

fn body(report: &Report, index: usize) -> String {
    let evidence = &report.evidence.devices[index];
    let mut out = format!("<p class=\"ids\">{}</p>\n", ids(report, index));
    if evidence.phases.is_empty() {
        out.push_str("<p class=\"muted\">Nothing ran on it.</p>\n");
        return out;
    }
    out.push_str(&tiles(report, index));
    out.push_str(&bars::chart(report, index));
    out.push_str(&timeline::chart(report, index));
    out.push_str(&sm_map::maps(evidence));
    let reasons = report.judgement.reasons.iter();
    let of_it = reasons.filter(|reason| reason.device == Some(index));
    out.push_str(&nvlinks::strip(evidence, of_it));
    out.push_str(&tables::corruptions(evidence));
    out.push_str(&tables::phases(report, index));
    out.push_str(&tables::counters(evidence));
    out
}

fn ids(report: &Report, index: usize) -> String {
    let device = &report.evidence.devices[index].device;
    let mut parts = vec![device.uuid.clone()];
    parts.extend(device.pci_address.clone());
    parts.extend(device.serial.as_ref().map(|serial| format!("serial {serial}")));
    parts.extend(device.vbios.as_ref().map(|vbios| format!("VBIOS {vbios}")));
    parts.extend(device.sm_count.map(|sms| format!("{sms} SMs")));
    parts.extend(device.memory_total_bytes.map(bytes));
    parts.extend(
        device
            .ecc
            .map(|ecc| format!("ECC {}", if ecc { "on" } else { "off" })),
    );
    parts.extend(device.power_limit_w.map(|limit| format!("{limit:.0} W")));
    let parts: Vec<String> = parts
        .iter()
        .map(|part| escaped(part))
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" · ")
}

/// The few numbers that one looks for first.
fn tiles(report: &Report, index: usize) -> String {
    let evidence = &report.evidence.devices[index];
    let mut out = String::from("<div class=\"tiles\">\n");
    let of_expected = |figure: &Figure| {
        figure
            .ratio
            .map_or(String::new(), |ratio| format!("{} of expected", percent(ratio)))
    };
    let mut tile = |name: &str, value: &str, unit: &str, below: &str, tone: &str| {
        let _ = writeln!(
            out,
            "<div class=\"tile {tone}\"><span class=\"name\">{}</span><span class=\"value\">{}<small>{unit}</small></span>\
             <span class=\"below\">{}</span></div>",
            escaped(name),
            escaped(value),
            escaped(below),
        );
    };
    for (kind, name) in [
        (PhaseKind::Gemm, "Products"),
        (PhaseKind::Copy, "Memory"),
        (PhaseKind::HostToDevice, "From host"),
    ] {
        let Some(figure) = first_figure(report, index, kind) else {
            continue;
        };
        let format = figure
            .format
            .map_or(String::new(), |format| format!(", {format}"));
        tile(
            &format!("{name}{format}"),
            &short(figure.measured),
            &figure.unit.to_string(),
            &of_expected(figure),
            bars::tone(figure.grade),
        );
    }
    if let Some(power) = most(evidence, |sample| sample.power_w) {
        let below = evidence
            .device
            .power_limit_w
            .map_or(String::new(), |limit| format!("limit {limit:.0} W"));
        tile("Most power", &format!("{power:.0}"), "W", &below, "");
    }
    if let Some(heat) = most(evidence, |sample| sample.temperature_c) {
        let memory = most(evidence, |sample| sample.memory_temperature_c);
        let below = memory.map_or(String::new(), |memory| format!("memory {memory:.0} °C"));
        tile("Hottest", &format!("{heat:.0}"), "°C", &below, "");
    }
    let (wrong, outputs, of_memory) = totals(evidence);
    let below = format!("of {} results and {}", count(outputs), bytes(of_memory));
    tile(
        "Wrong",
        &count(wrong),
        "",
        &below,
        if wrong > 0 { "bad" } else { "" },
    );
    out.push_str("</div>\n");
    out
}
